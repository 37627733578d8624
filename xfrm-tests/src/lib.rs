//! The lab of hostseal.
