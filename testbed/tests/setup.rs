//! `testbed/setup.sh` on machines that lack something: a folder stands for the machine's files, and what is in PATH is made
//! up, so that each system's words can be read on any. That the packages have these names, only those systems can show.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

/// What the script uses and every system has.
const TOOLS: [&str; 6] = ["cat", "cp", "env", "mktemp", "rm", "tee"];

const DEBIAN: &str = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n";

/// A machine as the script sees it.
struct Machine {
    folder: tempfile::TempDir,
}

/// How the script ended and what it wrote.
struct Said {
    good: bool,
    text: String,
}

impl Machine {
    /// With this `/etc/os-release`, used by a user who is not root, without a compiler, PostgreSQL or sudo.
    fn new(release: &str) -> Machine {
        let machine = Machine { folder: tempfile::tempdir().unwrap() };
        for folder in ["bin", "etc/postgresql-common", "usr/lib"] {
            fs::create_dir_all(machine.path(folder)).unwrap();
        }
        fs::write(machine.path("etc/os-release"), release).unwrap();
        for tool in TOOLS {
            let path = std::env::var_os("PATH").unwrap();
            let found = std::env::split_paths(&path).map(|folder| folder.join(tool)).find(|path| path.exists());
            symlink(found.unwrap(), machine.path("bin").join(tool)).unwrap();
        }
        machine.with("uname", "echo Linux").with("id", "echo 1000")
    }

    fn mac() -> Machine {
        Machine::new("").with("uname", "echo Darwin").with("cc", "exit 1").with("xcode-select", "exit 2")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// And a program of this name that does this.
    fn with(self, name: &str, does: &str) -> Machine {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{does}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// And an apt-get that writes down what it is asked for, and what holds for new clusters then.
    fn with_apt(self) -> Machine {
        fs::write(self.path("etc/postgresql-common/createcluster.conf"), "# as shipped\n").unwrap();
        let folder = self.folder.path().display().to_string();
        let clusters = format!("$(tail -n 1 {folder}/etc/postgresql-common/createcluster.conf)");
        let tail = "tail() { while read -r line; do last=$line; done <\"$3\"; echo \"$last\"; }";
        self.with("apt-get", &format!("{tail}\necho \"$* [{clusters}]\" >>{folder}/calls"))
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.path("calls")).unwrap_or_default()
    }

    fn setup(&self) -> Said {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/setup.sh");
        let mut command = Command::new("/bin/sh");
        command.arg(script).env_clear().env("PATH", self.path("bin")).env("SETUP_ROOT", self.folder.path());
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        Said { good: output.status.success(), text: String::from_utf8(text).unwrap() }
    }
}

#[test]
fn each_system_is_told_in_its_own_words_what_to_install() {
    for (release, command) in [
        (DEBIAN, "apt-get update && apt-get install --no-install-recommends gcc libc6-dev postgresql\n"),
        ("ID=ubuntu\nID_LIKE=debian\n", "apt-get install --no-install-recommends gcc libc6-dev postgresql\n"),
        ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", "apt-get install --no-install-recommends gcc libc6-dev "),
        ("ID=fedora\n", "    dnf install gcc postgresql-server\n"),
        ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", "    dnf install gcc postgresql-server\n"),
        ("NAME=\"Alpine Linux\"\nID=alpine\n", "    apk add gcc musl-dev postgresql\n"),
        ("ID=arch\n", "    pacman -S --needed gcc postgresql\n"),
        ("ID=manjaro\nID_LIKE=arch\n", "    pacman -S --needed gcc postgresql\n"),
        ("ID=nixos\n", "the packages may be called gcc postgresql\n"),
        ("", "the packages may be called gcc postgresql\n"),
    ] {
        let said = Machine::new(release).setup();
        assert!(!said.good && said.text.contains(command), "{release}{}", said.text);
        assert!(said.text.contains("run as root:\n"), "{}", said.text);
    }
}

#[test]
fn a_system_is_found_where_etc_has_no_word_of_it() {
    let machine = Machine::new("");
    fs::rename(machine.path("etc/os-release"), machine.path("usr/lib/os-release")).unwrap();
    fs::write(machine.path("usr/lib/os-release"), "ID=arch\n").unwrap();
    assert!(machine.setup().text.contains("pacman"));
}

#[test]
fn only_what_is_missing_is_named() {
    let machine = Machine::new("ID=fedora\n").with("cc", "");
    let said = machine.setup();
    assert!(said.text.contains("dnf install postgresql-server\n") && !said.text.contains("cc"), "{}", said.text);
    let said = machine.with("initdb", "").setup();
    assert!(said.good && said.text.is_empty(), "{}", said.text);
}

#[test]
fn postgresql_is_found_in_debians_place() {
    let machine = Machine::new(DEBIAN).with("cc", "");
    fs::create_dir_all(machine.path("usr/lib/postgresql/15/bin")).unwrap();
    symlink(machine.path("bin/cc"), machine.path("usr/lib/postgresql/15/bin/initdb")).unwrap();
    assert!(machine.setup().good);
}

#[test]
fn on_macos_it_says_what_to_install_and_that_the_demo_needs_linux() {
    let said = Machine::mac().setup();
    // The `cc` of a new Mac only offers to install one.
    for words in ["    xcode-select --install\n", "    brew install postgresql@17\n", "need Linux", "docker run"] {
        assert!(said.text.contains(words), "{words}: {}", said.text);
    }
    assert!(!said.good && !said.text.contains("as root"), "{}", said.text);
    let said = Machine::mac().with("xcode-select", "").with("initdb", "").setup();
    assert!(!said.good && said.text.contains("need Linux") && !said.text.contains("brew"), "{}", said.text);
}

#[test]
fn without_root_and_without_sudo_nothing_is_installed_on_debian() {
    let refuses = "echo sudo: a password is required >&2; exit 1";
    for machine in [Machine::new(DEBIAN), Machine::new(DEBIAN).with("sudo", refuses)] {
        let machine = machine.with_apt();
        let said = machine.setup();
        assert!(!said.good && said.text.contains("run as root:\n"), "{}", said.text);
        assert_eq!(machine.calls(), "");
    }
}

#[test]
fn as_root_or_through_sudo_debian_gets_what_is_missing_and_no_server_on_port_5432() {
    let root = Machine::new(DEBIAN).with("id", "echo 0");
    let sudo = Machine::new(DEBIAN).with("sudo", "[ \"$1\" != -n ] || exit 0; exec \"$@\"");
    for machine in [root, sudo] {
        let machine = machine.with_apt();
        let said = machine.setup();
        assert!(said.good, "{}", said.text);
        assert_eq!(
            machine.calls(),
            "update -q [# as shipped]\n\
             install -q -y --no-install-recommends postgresql-common [# as shipped]\n\
             install -q -y --no-install-recommends gcc libc6-dev postgresql [create_main_cluster = false]\n"
        );
        let after = fs::read_to_string(machine.path("etc/postgresql-common/createcluster.conf")).unwrap();
        assert_eq!(after, "# as shipped\n");
    }
}

#[test]
fn a_package_that_cannot_be_installed_fails_the_setup_and_leaves_the_settings_as_they_were() {
    let machine = Machine::new(DEBIAN).with("id", "echo 0").with_apt();
    let machine = machine.with("apt-get", "case \"$*\" in *gcc*) exit 100 ;; esac");
    assert!(!machine.setup().good);
    let after = fs::read_to_string(machine.path("etc/postgresql-common/createcluster.conf")).unwrap();
    assert_eq!(after, "# as shipped\n");
}
