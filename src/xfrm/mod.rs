//! xfrm
