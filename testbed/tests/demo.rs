//! `testbed/demo.sh`: what is said while the demo is built, with a made-up cargo. What the demo then shows, `make test` runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs it with this as cargo, and as the demo a program that says that it runs.
fn demo(cargo: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let script = |path: &Path, text: &str| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    script(&folder.path().join("bin/cargo"), cargo);
    script(&folder.path().join("target/debug/demo"), "echo the demo runs: $*");
    let path = format!("{}:{}", folder.path().join("bin").display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/demo.sh")).arg("--once");
    command.env("PATH", path).env("CARGO_TARGET_DIR", folder.path().join("target")).stdin(Stdio::null());
    command.output().unwrap()
}

/// Sixty crates, one of them listed twice.
const CARGO: &str = "if [ \"$1\" = tree ]; then seq 60; echo '7 (*)'; exit; fi\n\
     for n in $(seq 60); do echo \"   Compiling crate-$n v1.0.0\" >&2; done\n\
     echo 'warning: of the build' >&2";

#[test]
fn where_there_is_no_terminal_lines_say_how_far_the_build_is() {
    let output = demo(CARGO);
    let said = String::from_utf8(output.stdout).unwrap();
    let without_times = said.lines().map(|line| line.split(" after ").next().unwrap());
    let (first, rest) = (said.lines().next().unwrap(), without_times.skip(1).collect::<Vec<_>>());
    assert!(output.status.success() && first.starts_with("demo: 1 of 2: building 60 crates"), "{said}");
    assert_eq!(
        rest,
        [
            "demo: 25 of 60 crates",
            "demo: 50 of 60 crates",
            "warning: of the build",
            "demo: 2 of 2: built",
            "the demo runs: --once"
        ]
    );
}

#[test]
fn a_build_that_fails_ends_it_with_the_compilers_words() {
    let output = demo(&format!("{CARGO}\necho 'error: no such thing' >&2; exit 101"));
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(101), "{said}");
    assert!(said.contains("error: no such thing\n") && !said.contains("the demo runs"), "{said}");
}
