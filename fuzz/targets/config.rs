//! A configuration file: it is refused in words, or all that can be asked of it has an answer.

#![no_main]

use hostseal::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match Config::parse(text, "fuzz.toml") {
    Err(error) => assert!(error.to_string().starts_with("fuzz.toml"), "{error}"),
    Ok(config) => {
        assert_eq!(config.config_id().len(), 16);
        for node in &config.nodes {
            for (other, pair) in config.pairs(node) {
                assert_ne!(other, node.name);
                assert_ne!(pair.local, pair.remote);
            }
        }
    }
});
