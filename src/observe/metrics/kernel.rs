//! The kernel's XFRM error counters as series, and what makes each of them grow.

/// The name of the series of a counter, and the cause.
pub fn series(counter: &str) -> (String, &'static str) {
    let mut name = String::new();
    for c in counter.chars().filter(char::is_ascii_alphanumeric) {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    (format!("{name}_total"), cause(counter))
}

/// What makes a counter grow, on the whole host: also IPsec that is not hostseal's.
fn cause(counter: &str) -> &'static str {
    match counter {
        "XfrmInError" => "Inbound packets dropped for an error that has no counter.",
        "XfrmInBufferError" => "Inbound packets dropped for want of memory.",
        "XfrmInHdrError" => "Inbound packets with a broken ESP or UDP header.",
        "XfrmInNoStates" => {
            "Inbound ESP with an SPI that no SA has: the other host uses keys that are gone here."
        }
        "XfrmInStateProtoError" => {
            "Inbound ESP that could not be decrypted: a failed integrity check, or a wrong key."
        }
        "XfrmInStateModeError" => "Inbound packets in another mode than their SA has.",
        "XfrmInStateSeqError" => "Inbound ESP that was replayed, or was older than the replay window.",
        "XfrmInStateExpired" => "Inbound ESP of an SA that had ended.",
        "XfrmInStateMismatch" => {
            "Inbound packets whose addresses or encapsulation are not those of their SA."
        }
        "XfrmInStateInvalid" => "Inbound ESP of an SA that was not ready yet, or was going.",
        "XfrmInStateDirError" => "Inbound ESP of an SA for outbound packets.",
        "XfrmInTmplMismatch" => {
            "Inbound packets in the clear that had to be ESP, or came through a wrong SA: dropped."
        }
        "XfrmInNoPols" => "Inbound packets that no policy allowed.",
        "XfrmInPolBlock" => "Inbound packets that a policy blocked.",
        "XfrmInPolError" => "Inbound packets whose policy had an error.",
        "XfrmInIptfsError" => "Inbound packets of an IP-TFS tunnel with an error.",
        "XfrmAcquireError" => "Packets dropped while the kernel waited for keys that did not come.",
        "XfrmFwdHdrError" => "Forwarded packets with a broken header.",
        "XfrmOutError" => "Outbound packets dropped for an error that has no counter.",
        "XfrmOutBundleGenError" => "Outbound packets for which no route through an SA could be made.",
        "XfrmOutBundleCheckError" => "Outbound packets whose route through an SA was no longer good.",
        "XfrmOutNoStates" => {
            "Outbound packets that had to be ESP and found no SA: dropped, as the pair is blocked."
        }
        "XfrmOutStateProtoError" => "Outbound packets that could not be encrypted.",
        "XfrmOutStateModeError" => "Outbound packets too large for their SA, or of another mode.",
        "XfrmOutStateSeqError" => "Outbound packets of an SA whose sequence numbers ran out.",
        "XfrmOutStateExpired" => "Outbound packets of an SA that had ended.",
        "XfrmOutStateInvalid" => "Outbound packets of an SA that was not ready yet, or was going.",
        "XfrmOutStateDirError" => "Outbound packets of an SA for inbound ESP.",
        "XfrmOutPolBlock" => "Outbound packets that a policy blocked.",
        "XfrmOutPolDead" => "Outbound packets whose policy was just removed.",
        "XfrmOutPolError" => "Outbound packets whose policy had an error.",
        "XfrmOutNoQueueSpace" => "Outbound packets beyond those that may wait for an SA.",
        _ => "A counter of the kernel's XFRM errors (/proc/net/xfrm_stat).",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_has_a_name_and_a_cause() {
        assert_eq!(series("XfrmInNoStates").0, "xfrm_in_no_states_total");
        assert!(series("XfrmInNoStates").1.contains("SPI"));
        assert_eq!(series("Xfrm{ \"Odd").0, "xfrm_odd_total");
    }
}
