//! The kernel's counters of what IPsec dropped, and why.

use std::collections::BTreeMap;
use std::{fs, io};

/// `/proc/net/xfrm_stat` as this thread's network namespace has it: counter by name, the zeros too. Not
/// found means that the kernel was built without `CONFIG_XFRM_STATISTICS`.
pub fn statistics() -> io::Result<BTreeMap<String, u64>> {
    // `/proc/net` shows the namespace of the process's first thread.
    Ok(parse(&fs::read_to_string("/proc/thread-self/net/xfrm_stat")?))
}

/// The lines that are a name and a number.
pub(super) fn parse(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(char::is_whitespace)?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}
