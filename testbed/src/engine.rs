//! The network on a real Docker Engine: containers, aliases and Docker's own DNS at 127.0.0.11.
//!
//! What runs is what runs on loopback: the workspace's binaries, mounted into an image that holds nothing else. Each
//! container is confined as an operator would confine it: not root, no capability, a read-only file system.

use crate::docker::{Bridge, bare_image, docker, engine_answers, try_docker, unique, wait_ended};
use crate::{App, Container, Network, Restart, Signal, guard};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A user-defined bridge network.
#[derive(Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bridge: Bridge,
    /// The engine's own address on it, where containers reach this machine.
    gateway: IpAddr,
    numbers: Mutex<HashMap<String, usize>>,
}

impl Engine {
    /// A network with nobody on it, for this test; `None` where no engine answers, which is said loudly (see
    /// [`engine_answers`]).
    ///
    /// # Panics
    /// When the engine answers and fails.
    pub fn for_test(test: &str) -> Option<Engine> {
        engine_answers(test).then(|| {
            let bridge = Bridge::new(&[]);
            Engine { inner: Arc::new(Inner { gateway: bridge.gateway(), bridge, numbers: Mutex::default() }) }
        })
    }

    /// The network's name on the engine.
    pub fn name(&self) -> &str {
        self.inner.bridge.name()
    }
}

/// Docker's own, in every container on a user-defined network.
const RESOLVER: ([u8; 4], u16) = ([127, 0, 0, 11], 53);

/// Containers have addresses of their own, so all can use the usual one.
const PORT: u16 = 8080;

/// Whom containers run as: nobody that this machine knows.
const USER: &str = "65532:65532";

impl Network for Engine {
    fn resolver(&self) -> SocketAddr {
        RESOLVER.into()
    }

    fn port(&self) -> u16 {
        PORT
    }

    fn host(&self) -> IpAddr {
        self.inner.gateway
    }

    fn start(&self, alias: &str, app: &App) -> Box<dyn Container> {
        let number = {
            let mut numbers = self.inner.numbers.lock().unwrap_or_else(|e| e.into_inner());
            let number = numbers.entry(alias.to_owned()).or_default();
            *number += 1;
            *number
        };
        let member = Member {
            name: format!("{alias}.{number}"),
            id: unique(alias),
            network: self.inner.clone(),
            alias: alias.to_owned(),
            address: Mutex::new(([0, 0, 0, 0], PORT).into()),
        };
        guard::watch_container(&member.id);
        let mut arguments = vec!["create".into(), "--name".into(), member.id.clone()];
        arguments.extend(["--network".into(), self.name().into(), "--network-alias".into(), alias.into()]);
        arguments.extend(confined(app, &member.name));
        docker(&arguments);
        docker(["start", &member.id]);
        member.find_address();
        Box::new(member)
    }
}

/// The rest of `docker create` for this program, from `--init` to its arguments: PID 1 is Docker's own init, as on
/// Dokku, for a program without a handler ignores SIGTERM if it is PID 1 itself.
pub fn confined(app: &App, name: &str) -> Vec<String> {
    let folder = |path: &Path| format!("{0}:{0}:ro", path.display());
    let mut arguments: Vec<String> =
        ["--init", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user", USER]
            .map(Into::into)
            .into();
    let env = [("HOST".into(), "0.0.0.0".into()), ("PORT".into(), PORT.to_string()), ("NAME".into(), name.into())];
    for (key, value) in env.into_iter().chain(app.env.iter().cloned()) {
        arguments.extend(["--env".into(), format!("{key}={value}")]);
    }
    for mount in app.program.parent().into_iter().chain(app.mount.as_deref()) {
        arguments.extend(["--volume".into(), folder(mount)]);
    }
    arguments.extend([bare_image().into(), app.program.display().to_string()]);
    arguments.extend(app.args.iter().cloned());
    arguments
}

struct Member {
    name: String,
    /// Its name on the engine.
    id: String,
    network: Arc<Inner>,
    alias: String,
    /// The last one it had: the engine forgets it when the process has ended.
    address: Mutex<SocketAddr>,
}

impl Member {
    fn inspect(&self, format: &str) -> String {
        docker(["inspect", "--format", format, &self.id])
    }

    fn find_address(&self) {
        let network = self.network.bridge.name();
        let found = self.inspect(&format!("{{{{(index .NetworkSettings.Networks {network:?}).IPAddress}}}}"));
        // A program that ended at once has none any more.
        if let Ok(ip) = found.parse() {
            *self.address.lock().unwrap_or_else(|e| e.into_inner()) = SocketAddr::new(ip, PORT);
        }
    }
}

impl Container for Member {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn id(&self) -> String {
        self.id.clone()
    }

    fn address(&self) -> SocketAddr {
        *self.address.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn pid(&self) -> u32 {
        let init: u32 = self.inspect("{{.State.Pid}}").parse().unwrap_or(0);
        let children = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap_or_default();
        children.split_whitespace().next().and_then(|pid| pid.parse().ok()).unwrap_or(0)
    }

    fn signal(&self, signal: Signal) {
        // A program that has ended gets nothing.
        let _ = match signal {
            // Docker's init cannot pass these two on: they would stop and continue itself.
            Signal::SIGSTOP => try_docker(["pause", &self.id]),
            Signal::SIGCONT => try_docker(["unpause", &self.id]),
            signal => try_docker(["kill", "--signal", signal.as_str(), &self.id]),
        };
    }

    fn pause(&self) {
        docker(["pause", &self.id]);
    }

    fn resume(&self) {
        docker(["unpause", &self.id]);
    }

    fn restart(&self, how: Restart) {
        self.signal(Signal::SIGKILL);
        self.wait_exit();
        // The engine gives out the freed address again; while somebody else has it, it cannot.
        let squatter = (how == Restart::NewAddress).then(|| {
            let id = unique("squatter");
            guard::watch_container(&id);
            let ip = self.address().ip();
            let mut arguments: Vec<String> = ["run", "--detach", "--name", &id].map(Into::into).into();
            arguments.extend(["--network".into(), self.network.bridge.name().into()]);
            arguments.extend(confined(&App::replica(), "squatter"));
            docker(&arguments);
            (id, ip)
        });
        docker(["start", &self.id]);
        self.find_address();
        if let Some((id, before)) = squatter {
            let _ = try_docker(["rm", "--force", &id]);
            guard::release_container(&id);
            assert_ne!(self.address().ip(), before, "{} returned where it was", self.name);
        }
    }

    fn rename(&self, away: Duration) {
        let away_name = format!("{}.away", self.id);
        docker(["rename", &self.id, &away_name]);
        std::thread::sleep(away);
        docker(["rename", &away_name, &self.id]);
    }

    fn disconnect(&self) {
        docker(["network", "disconnect", self.network.bridge.name(), &self.id]);
    }

    fn exited(&self) -> Option<i32> {
        let state = self.inspect("{{.State.Status}} {{.State.ExitCode}}");
        let (status, code) = state.split_once(' ').expect("two words");
        (status == "exited").then(|| code.parse().expect("a number"))
    }

    fn wait_exit(&self) -> i32 {
        wait_ended(&self.id)
    }

    fn output(&self) -> String {
        let said = std::process::Command::new("docker").args(["logs", &self.id]).output();
        said.map(|s| String::from_utf8_lossy(&[s.stdout, s.stderr].concat()).into_owned()).unwrap_or_default()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let output = self.output();
            eprintln!("--- the last lines of {} ({}, alias {})", self.name, self.id, self.alias);
            output.lines().rev().take(40).collect::<Vec<_>>().iter().rev().for_each(|line| eprintln!("{line}"));
        }
        let _ = try_docker(["rm", "--force", &self.id]);
        guard::release_container(&self.id);
    }
}
