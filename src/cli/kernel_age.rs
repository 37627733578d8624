//! Whether the kernel is one that still gets fixes: ESP is the kernel's, and so are its holes.

use std::fs;

/// The oldest line of kernels that is looked after, as its first two numbers. ESP had holes before it that were never
/// closed there.
const OLDEST: (u32, u32) = (5, 10);

/// What to tell whoever runs an older one.
pub(super) fn warning() -> Option<String> {
    judge(&release()?)
}

/// What this kernel is called.
pub(super) fn release() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(release.trim().to_owned())
}

fn judge(release: &str) -> Option<String> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let line: (u32, u32) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    let (major, minor) = OLDEST;
    (line < OLDEST).then(|| {
        format!(
            "kernel {release} is older than {major}.{minor} and gets no fixes any more, not for ESP either: what \
             protects this host may have known holes. Use a newer kernel"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_without_fixes_are_named() {
        for release in ["4.19.0-27-amd64", "5.4.0", "3.10.0-1160.el7.x86_64"] {
            assert!(judge(release).is_some_and(|words| words.contains(release) && words.contains("5.10")));
        }
        for release in ["5.10.0-33-amd64", "6.1.0", "6.12.48+deb13", "7.2", "nonsense", ""] {
            assert_eq!(judge(release), None, "{release}");
        }
    }
}
