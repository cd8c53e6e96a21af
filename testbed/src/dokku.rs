//! Dokku's deploys, emulated with plain `docker`: the order of its docker-local scheduler and its names.
//! It is an emulation of that order, not Dokku.

use crate::docker::{Bridge, docker, try_docker, unique};
use crate::{App, confined, guard};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// How an app's containers come onto the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// `network:set APP attach-post-create`: created on the default bridge, connected, then started. In DNS before the
    /// process listens and before any check. The alias is `APP.web`.
    PostCreate,
    /// `network:set APP attach-post-deploy`: connected once the checks have passed, while it runs. The alias is `APP.web`.
    PostDeploy,
    /// `docker-options:add APP deploy "--net NET --net-alias APP"`, as in 2018. The alias is `APP`.
    NetAlias,
}

/// When the old containers are told to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retirement {
    /// All at once as soon as the new ones have passed their checks, and stopped after [`WAIT_TO_RETIRE`]: since 0.38.
    EarlyTerm,
    /// Stopped after [`WAIT_TO_RETIRE`], untold until then: before 0.38.
    AfterWait,
    /// Stopped before the new ones are started: `checks:disable`.
    Before,
}

/// What a new container has to pass.
#[derive(Clone, Debug)]
pub enum Check {
    /// It runs for so long. Dokku's default is 10 s.
    Uptime(Duration),
    /// This command, run in it, succeeds within ten attempts a second apart: a `startup` healthcheck of app.json.
    Startup(Vec<String>),
}

/// A container was told to end, or removed by force.
#[derive(Clone, Debug)]
pub struct Ending {
    /// The address that it had.
    pub address: IpAddr,
    /// From just before it was told to just after the engine had done so.
    pub time: RangeInclusive<Instant>,
}

/// Dokku's `wait-to-retire`, 60 s there.
pub const WAIT_TO_RETIRE: Duration = Duration::from_secs(4);

/// One app, process type `web`.
#[derive(Debug)]
pub struct DokkuApp<'a> {
    /// Unique on the engine, as an app's name is on its host.
    name: String,
    /// What the operator calls it.
    alias: String,
    network: &'a Bridge,
    app: App,
    /// How it comes onto the network.
    pub attachment: Attachment,
    /// How the old ones go.
    pub retirement: Retirement,
    /// What the new ones must pass.
    pub check: Check,
    running: Vec<String>,
    /// Told to go, and to be stopped at that time.
    retiring: Vec<(String, Instant)>,
    endings: Vec<Ending>,
}

impl<'a> DokkuApp<'a> {
    /// An app that has not been deployed.
    pub fn new(alias: &str, network: &'a Bridge, app: App, attachment: Attachment) -> DokkuApp<'a> {
        DokkuApp {
            name: unique(alias),
            alias: alias.into(),
            network,
            app,
            attachment,
            retirement: Retirement::EarlyTerm,
            check: Check::Uptime(Duration::from_secs(1)),
            running: vec![],
            retiring: vec![],
            endings: vec![],
        }
    }

    /// By which name others find it.
    pub fn alias(&self) -> String {
        match self.attachment {
            Attachment::NetAlias => self.alias.clone(),
            Attachment::PostCreate | Attachment::PostDeploy => format!("{}.web", self.alias),
        }
    }

    /// Its containers, without those that retire.
    pub fn containers(&self) -> &[String] {
        &self.running
    }

    /// Containers that retire.
    pub fn retiring(&self) -> Vec<String> {
        self.retiring.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The containers that were told to end, or removed by force, so far.
    pub fn endings(&self) -> &[Ending] {
        &self.endings
    }

    /// Where such a container is on the network.
    pub fn address(&self, container: &str) -> String {
        self.try_address(container).unwrap_or_else(|| panic!("{container} is not on the network"))
    }

    fn try_address(&self, container: &str) -> Option<String> {
        let format = format!("{{{{(index .NetworkSettings.Networks {:?}).IPAddress}}}}", self.network.name());
        try_docker(["inspect", "--format", &format, container]).ok()
    }

    /// Another version, from the next deploy on.
    pub fn set_app(&mut self, app: App) {
        self.app = app;
    }

    /// `git push`, `ps:restart`, `ps:scale web=COUNT`: every container is made anew. Returns when the old ones have been
    /// told to go (or not; see [`Retirement`]), and before they are stopped.
    ///
    /// # Errors
    /// When a check fails: the new ones are removed, the old ones stay.
    pub fn deploy(&mut self, count: usize) -> Result<(), String> {
        if self.retirement == Retirement::Before {
            for old in std::mem::take(&mut self.running) {
                self.stop(&old);
            }
        }
        let upcoming: Vec<String> = (1..=count).map(|number| self.create(number)).collect();
        if let Err(why) = upcoming.iter().try_for_each(|new| self.pass(new)) {
            upcoming.iter().for_each(|new| self.end(std::slice::from_ref(new), || remove(new)));
            return Err(why);
        }
        if self.attachment == Attachment::PostDeploy {
            upcoming.iter().for_each(|new| self.connect(new));
        }
        // Renamed while both serve.
        let epoch = fastrand::u32(..);
        let rename = |from: &str, to: String| {
            guard::watch_container(&to);
            docker(["rename", from, &to]);
            guard::release_container(from);
            to
        };
        let old: Vec<String> = self.running.drain(..).map(|name| rename(&name, format!("{name}.{epoch}"))).collect();
        for (number, name) in (1..).zip(&upcoming) {
            self.running.push(rename(name, format!("{}.web.{number}", self.name)));
        }
        if self.retirement == Retirement::EarlyTerm && !old.is_empty() {
            self.end(&old, || {
                // One that has ended meanwhile needs not be told.
                let _ = try_docker(["kill", "--signal", "SIGTERM"].into_iter().chain(old.iter().map(String::as_str)));
            });
        }
        let due = Instant::now() + WAIT_TO_RETIRE;
        self.retiring.extend(old.into_iter().map(|name| (name, due)));
        Ok(())
    }

    /// Waits until the old ones are due, and stops them.
    pub fn retire(&mut self) {
        for (old, due) in std::mem::take(&mut self.retiring) {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.stop(&old);
        }
    }

    fn stop(&mut self, container: &str) {
        self.end(&[container.to_owned()], || {
            docker(["stop", "--time", "30", container]);
        });
        remove(container);
    }

    /// Ends these containers by `how`, and notes where they were and when that was.
    fn end(&mut self, containers: &[String], how: impl FnOnce()) {
        // One that has ended by itself, or is not attached yet, has no address.
        let addresses: Vec<IpAddr> = containers.iter().filter_map(|c| self.try_address(c)?.parse().ok()).collect();
        let began = Instant::now();
        how();
        let time = began..=Instant::now();
        self.endings.extend(addresses.into_iter().map(|address| Ending { address, time: time.clone() }));
    }

    fn create(&self, number: usize) -> String {
        let name = format!("{}.web.{number}.upcoming-{}", self.name, fastrand::u16(..));
        guard::watch_container(&name);
        let mut arguments: Vec<String> = ["container", "create", "--name", &name].map(Into::into).into();
        arguments.push("--restart=on-failure:10".into());
        if self.attachment == Attachment::NetAlias {
            arguments.extend(["--net", self.network.name(), "--net-alias", &self.alias].map(Into::into));
        }
        arguments.extend(confined(&self.app, &format!("{}.{number}", self.alias)));
        docker(arguments);
        if self.attachment == Attachment::PostCreate {
            self.connect(&name);
        }
        docker(["container", "start", &name]);
        name
    }

    fn connect(&self, container: &str) {
        let aliases = ["--alias", &self.alias(), "--alias", &format!("host.{}", self.alias())].map(str::to_owned);
        let mut arguments = vec!["network".to_owned(), "connect".into()];
        arguments.extend(aliases);
        arguments.extend([self.network.name().into(), container.into()]);
        docker(arguments);
    }

    fn pass(&self, container: &str) -> Result<(), String> {
        let runs = || docker(["inspect", "--format", "{{.State.Running}} {{.RestartCount}}", container]) == "true 0";
        match &self.check {
            Check::Uptime(uptime) => {
                std::thread::sleep(*uptime);
                if runs() { Ok(()) } else { Err(format!("{container} does not stay up")) }
            }
            Check::Startup(command) => {
                let mut last = String::new();
                for _ in 0..10 {
                    let exec = ["exec", container].into_iter().chain(command.iter().map(String::as_str));
                    match try_docker(exec) {
                        Ok(_) => return Ok(()),
                        Err(error) => last = error.to_string(),
                    }
                    std::thread::sleep(Duration::from_secs(1));
                }
                Err(last)
            }
        }
    }
}

impl Drop for DokkuApp<'_> {
    fn drop(&mut self) {
        let retiring = self.retiring.drain(..).map(|(name, _)| name);
        for container in self.running.drain(..).chain(retiring) {
            if std::thread::panicking() {
                let said = std::process::Command::new("docker").args(["logs", "--tail", "60", &container]).output();
                let said = said.map(|s| [s.stdout, s.stderr].concat()).unwrap_or_default();
                eprintln!("--- the last lines of {container}\n{}", String::from_utf8_lossy(&said));
            }
            remove(&container);
        }
    }
}

fn remove(container: &str) {
    let _ = try_docker(["rm", "--force", container]);
    guard::release_container(container);
}
