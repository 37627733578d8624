//! The file in the state directory: it is refused, or says the same once it is written again.

#![no_main]

use hostseal::store::Saved;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    if let Ok(saved) = Saved::from_json(json) {
        assert_eq!(Saved::from_json(&saved.to_json()).as_ref(), Ok(&saved));
        assert!(saved.sealed().len() <= saved.pairs.len());
    }
});
