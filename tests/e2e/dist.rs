//! What `make dist` makes of an executable, as a user meets it: the Debian package on a host with systemd, and the image
//! behind the eight lines of compose. The executable is that of the testbed's image: static and optimized as a release's.

use super::compose::Compose;
use super::images::image;
use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use testbed::docker::{Bridge, Guest, IMAGE_PREFIX, build_images, docker, engine_answers, tally, try_docker, unique};
use testbed::{App, Response, Wire, eventually};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The release's executable, out of the image.
fn executable(folder: &Path) -> PathBuf {
    let container = Guest::run("executable", [image("evenkeel"), "evenkeel".into(), "hold".into()]);
    let file = folder.join("evenkeel");
    docker(["cp", &format!("{}:/usr/local/bin/evenkeel", container.name()), file.to_str().unwrap()]);
    file
}

#[track_caller]
fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn answer(to: SocketAddr, target: &str) -> Option<Response> {
    let mut wire = Wire::try_connect(to).ok()?;
    wire.get(target);
    wire.response().ok()
}

// --- The Debian package -----------------------------------------------------------------------------------------------

/// cargo-deb as `make dist` installs it, or the one in PATH.
fn cargo_deb() -> Option<PathBuf> {
    let ours = Path::new(ROOT).join("target/tools/bin/cargo-deb");
    [ours, "cargo-deb".into()].into_iter().find(|program| Command::new(program).arg("--version").output().is_ok())
}

/// The package as `make dist` packs it, of some version.
fn pack(program: &Path, executable: &Path, version: &str, folder: &Path) -> PathBuf {
    let built = folder.join("target/release");
    fs::create_dir_all(&built).unwrap();
    fs::copy(executable, built.join("evenkeel")).unwrap();
    let package = folder.join(format!("evenkeel_{version}.deb"));
    let mut command = Command::new(program);
    command.args(["--quiet", "--no-build", "--no-strip", "--fast", "--locked", "--deb-version", version, "--output"]);
    succeeds(command.arg(&package).current_dir(ROOT).env("CARGO_TARGET_DIR", folder.join("target")));
    package
}

/// A container that is a Debian host: systemd is its first process.
struct Host(Guest);

impl Host {
    /// `None` where this engine's machine does not let systemd run in a container.
    fn boot(network: &Bridge) -> Option<Host> {
        // What systemd needs to mount its own file systems, in namespaces of its own; nothing of this machine is mounted.
        let may = ["--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"];
        let mounts = ["--tmpfs=/run", "--tmpfs=/run/lock", "--tmpfs=/tmp:exec", "--tmpfs=/sys/fs/cgroup"];
        // As on a host, and unlike in containers otherwise, port 80 takes a capability.
        let rest = ["--sysctl=net.ipv4.ip_unprivileged_port_start=1024", "--network", network.name()];
        let image = image("systemd");
        let command = [image.as_str(), "/lib/systemd/systemd", "--log-target=console"];
        let host = Host(Guest::run("host", may.into_iter().chain(mounts).chain(rest).chain(command)));
        let mut looks = 0;
        while !host.up() {
            looks += 1;
            if looks > 100 || host.0.inspect("{{.State.Running}}") != "true" {
                return None;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        Some(host)
    }

    fn up(&self) -> bool {
        // Its exit status is that of a failure for `degraded`, which some unit of Debian's own may be.
        let said = Command::new("docker").args(["exec", self.0.name(), "systemctl", "is-system-running"]).output();
        said.is_ok_and(|said| ["running", "degraded"].contains(&String::from_utf8_lossy(&said.stdout).trim()))
    }

    #[track_caller]
    fn run(&self, command: &str) -> String {
        self.try_run(command)
            .unwrap_or_else(|e| panic!("{e}\n{}", self.try_run("journalctl -u evenkeel").unwrap_or_default()))
    }

    fn try_run(&self, command: &str) -> std::io::Result<String> {
        try_docker(["exec", self.0.name(), "sh", "-c", command])
    }

    /// Every file but those that change by themselves, and what the package manager notes of its own doing.
    fn files(&self) -> Vec<String> {
        let mut skipped = ["/proc", "/sys", "/dev", "/run", "/tmp", "/var/log", "/var/tmp"]
            .map(|p| format!("-path {p} -o"))
            .join(" ");
        skipped.push_str(" -path '/var/lib/dpkg/*-old' -o -path '/var/lib/systemd/*'");
        self.run(&format!("find / \\( {skipped} \\) -prune -o -print | sort")).lines().map(Into::into).collect()
    }

    fn copy(&self, file: &Path, to: &str) {
        // `docker cp` reaches no tmpfs.
        docker(["cp", file.to_str().unwrap(), &format!("{}:{to}", self.0.name())]);
    }

    fn address(&self, network: &Bridge) -> Ipv4Addr {
        address(&self.0, network)
    }
}

fn address(guest: &Guest, network: &Bridge) -> Ipv4Addr {
    let name = network.name();
    guest.inspect(&format!("{{{{(index .NetworkSettings.Networks {name:?}).IPAddress}}}}")).parse().unwrap()
}

#[test]
fn the_debian_package_serves_under_systemd_keeps_what_was_edited_and_leaves_nothing_behind() {
    let test = "dist::the_debian_package_serves_under_systemd";
    if !engine_answers(test) {
        return;
    }
    let Some(program) = cargo_deb() else {
        let _ =
            tally(test, Some("it needs cargo-deb, which `sh deploy/dist/tools.sh cargo-deb` installs into target/"));
        return;
    };
    build_images();
    let folder = tempfile::tempdir().unwrap();
    let executable = executable(folder.path());
    let network = Bridge::new(&[]);
    let Some(host) = Host::boot(&network) else {
        let _ = tally(test, Some("systemd does not run in a container of this engine"));
        return;
    };
    let app = Guest::on(&network, "app", &App::replica());
    let before = host.files();

    // Installed, it is there and does nothing yet.
    host.copy(&pack(&program, &executable, VERSION, folder.path()), "/var/tmp/one.deb");
    host.run("dpkg --install /var/tmp/one.deb");
    assert_eq!(host.run("evenkeel --version"), format!("evenkeel {VERSION}"));
    assert_eq!(host.run("dpkg-query --show --showformat '${Version}' evenkeel"), VERSION);
    let conffiles = host.run("dpkg-query --show --showformat '${Conffiles}' evenkeel");
    assert!(conffiles.contains("/etc/evenkeel/proxy.toml"), "{conffiles}");
    assert_eq!(host.run("cat /etc/evenkeel/proxy.toml") + "\n", include_str!("../../proxy.toml"));
    assert!(host.run("cat /usr/share/doc/evenkeel/copyright").contains("Permission is hereby granted"));
    host.run("test -s /usr/share/doc/evenkeel/README.md -a -s /usr/share/doc/evenkeel/docs/deploy.md");
    assert_eq!(host.run("systemctl is-enabled evenkeel || true"), "disabled");
    assert_eq!(host.run("systemctl is-active evenkeel || true"), "inactive");
    let checked = host.run("evenkeel check --config /etc/evenkeel/proxy.toml || true");
    assert!(checked.contains("proxy.toml: valid, 1 upstream"), "{checked}");

    // Configured and started, it serves.
    let toml = format!("[upstream.app]\naddress = \"{}:8080\"\n", address(&app, &network));
    host.run(&format!("printf '{}' >/etc/evenkeel/proxy.toml", toml.replace('\n', "\\n")));
    host.run("systemctl enable --now evenkeel");
    let served = || answer((host.address(&network), 80).into(), "/").is_some_and(|a| a.status == 200);
    eventually("the app answers through the proxy", served);
    assert!(host.run("evenkeel status").contains("1 of 1 replica usable"));

    // As nobody in particular, who may listen on port 80 and nothing else.
    let status = host.run("cat /proc/$(systemctl show --property MainPID --value evenkeel)/status");
    let field = |name: &str| {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {status}"));
        line.split_whitespace().next().unwrap().to_owned()
    };
    let user: u32 = field("Uid:").parse().unwrap();
    assert!((61184..=65519).contains(&user), "user {user} is none of systemd's dynamic ones");
    for set in ["CapEff:", "CapPrm:", "CapBnd:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(&field(set), 16).unwrap(), 1 << 10, "{set} is CAP_NET_BIND_SERVICE alone");
    }
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1".into(), "2".into()));
    // systemd's own judgement, from 0 (as confined as can be) to 100.
    host.run("systemd-analyze security --no-pager --threshold=20 evenkeel.service");

    // The next version serves on by the file that was edited, which a reload reads.
    host.copy(&pack(&program, &executable, "9999", folder.path()), "/var/tmp/two.deb");
    host.run("dpkg --install /var/tmp/two.deb");
    assert_eq!(host.run("cat /etc/evenkeel/proxy.toml") + "\n", toml);
    eventually("the app answers through the next version", served);
    host.run("systemctl reload evenkeel");
    assert_eq!(host.run("systemctl is-active evenkeel"), "active");

    // Removed, it leaves the configuration; purged, nothing.
    host.run("dpkg --remove evenkeel");
    assert!(answer((host.address(&network), 80).into(), "/").is_none(), "it still serves");
    assert_eq!(host.run("cat /etc/evenkeel/proxy.toml") + "\n", toml);
    host.run("dpkg --purge evenkeel");
    let after = host.files();
    let left: Vec<_> = after.iter().filter(|file| !before.contains(file)).collect();
    assert!(left.is_empty(), "{left:#?}");
    assert_eq!(after, before);
}

// --- The image ---------------------------------------------------------------------------------------------------------

/// An image that a test loaded, removed when dropped.
struct Loaded(String);

impl Drop for Loaded {
    fn drop(&mut self) {
        let _ = try_docker(["image", "rm", "--force", &self.0]);
    }
}

fn tarball(executable: &Path, name: &str, folder: &Path) -> PathBuf {
    let tarball = folder.join("image.tar");
    let mut command = Command::new("sh");
    command.arg(Path::new(ROOT).join("deploy/dist/image.sh")).arg(executable).arg(name).arg(&tarball);
    // The commit of a release, and the second at which it was made.
    succeeds(
        command
            .env("REVISION", "0123abc")
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .env("SOURCE", "https://example.org/evenkeel"),
    );
    tarball
}

fn config(image: &str) -> Value {
    serde_json::from_str(&docker(["image", "inspect", "--format", "{{json .Config}}", image])).unwrap()
}

/// The YAML of the section of docs/deploy.md that has it.
fn eight_lines() -> String {
    let manual = include_str!("../../docs/deploy.md");
    let blocks = manual.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let yaml = blocks.into_iter().find(|yaml| yaml.contains("image: your-app")).expect("the compose file for your app");
    assert!(yaml.lines().count() <= 8, "{yaml}");
    assert!(yaml.contains(&format!("image: evenkeel:{VERSION}\n")), "{yaml}");
    yaml.to_owned()
}

#[test]
fn the_image_of_a_release_is_the_dockerfiles_and_serves_an_app_by_eight_lines_of_compose() {
    let test = "dist::the_image_of_a_release";
    if !Compose::answers(test) {
        return;
    }
    build_images();
    let folder = tempfile::tempdir().unwrap();
    let executable = executable(folder.path());
    let name = format!("{IMAGE_PREFIX}{}:{VERSION}", unique("dist"));
    let tarball = tarball(&executable, &name, folder.path());

    // Loaded, it has that name, and is run as the one that the Dockerfile builds, but that it tells where it comes from.
    let loaded = docker(["load", "--input", tarball.to_str().unwrap()]);
    let loaded_image = Loaded(name.clone());
    assert_eq!(loaded, format!("Loaded image: {name}"));
    let (mut ours, theirs) = (config(&name), config(&image("evenkeel")));
    let mut more = ours["Labels"].as_object().unwrap().clone();
    for (label, value) in theirs["Labels"].as_object().unwrap() {
        assert_eq!(more.remove(label).as_ref(), Some(value), "{label}");
    }
    // Nothing tells when it was made but the commit's time.
    assert_eq!(docker(["image", "inspect", "--format", "{{.Created}}", &name]), "2023-11-14T22:13:20Z");
    let label = |name: &str| format!("org.opencontainers.image.{name}");
    assert_eq!(theirs["Labels"][label("version")], VERSION);
    let told = serde_json::json!({
        label("revision"): "0123abc",
        label("created"): "2023-11-14T22:13:20Z",
        label("source"): "https://example.org/evenkeel",
    });
    assert_eq!(Value::from(more), told);
    ours["Labels"] = theirs["Labels"].clone();
    for key in ["User", "Cmd", "Entrypoint", "Env", "ExposedPorts", "Healthcheck", "Labels", "StopSignal", "WorkingDir"]
    {
        assert_eq!(ours[key], theirs[key], "{key}");
    }

    // The manual's file as it stands there; ours says only by which names the two images go here. The app knows no
    // `/ping`: it answers 404.
    let files = tempfile::tempdir().unwrap();
    let write = |file: &str, text: String| fs::write(files.path().join(file), text).unwrap();
    write("compose.yaml", eight_lines());
    let app = format!(
        "image: {}, environment: {{ PORT: 8080, CHECK_DB_URL: 'http://nobody.invalid/' }}",
        image("evenkeel-web")
    );
    write("ours.yaml", format!("services:\n  app: {{ {app} }}\n  proxy: {{ image: {name} }}\n"));
    let compose = Compose::up(files.path(), &["compose.yaml", "ours.yaml"], &["--scale", "app=3"]);
    let at: SocketAddr = ([127, 0, 0, 1], compose.port).into();
    let is_the_apps = |a: Response| a.status == 404 && a.get("proxy-status").is_none();
    eventually("the app answers", || answer(at, "/ping").is_some_and(is_the_apps));
    eventually("its replicas are all used", || compose.has_replicas(3));
    drop(compose);
    drop(loaded_image);
}
