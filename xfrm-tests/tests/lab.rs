//! The lab's tests under `cargo test`.

fn main() -> std::process::ExitCode {
    xfrm_tests::harness::main()
}
