//! What a key is called, and where it therefore lies.

/// The region in which a key lies, where its name says it: that of an ARN does. It becomes part of the name of the host
/// that is asked, and so it is nothing that could name another one.
pub fn region(key: &str) -> Option<&str> {
    let mut parts = key.split(':');
    let (arn, _partition, service, region) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_region = !region.is_empty()
        && region.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-');
    (arn == "arn" && service == "kms" && is_region).then_some(region)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_says_the_region() {
        assert_eq!(region("arn:aws:kms:eu-central-1:1:key/2"), Some("eu-central-1"));
        assert_eq!(region("arn:aws-us-gov:kms:us-gov-west-1:1:alias/hosts"), Some("us-gov-west-1"));
        for other in [
            "alias/hosts",
            "2",
            "",
            "arn:aws:kms",
            "arn:aws:kms::1:key/2",
            "arn:aws:s3:eu:1:x",
            "arn:aws:kms:evil.example/:1:key/2",
        ] {
            assert_eq!(region(other), None, "{other}");
        }
    }
}
