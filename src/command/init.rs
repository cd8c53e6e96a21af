//! `evenkeel init`: the recipe that puts a proxy in front of apps, as a script for Dokku or a file for compose.
//!
//! It does nothing itself and knows nothing of the place: what is there already is found out by the script, where it runs.
//! Whether its steps are done is told by [`super::steps`], from within the proxy's container.

use std::fmt::Write as _;
use std::num::NonZeroU16;
use std::str::FromStr;

/// Where the apps run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Place {
    /// Prints a script for the Dokku host.
    Dokku,
    /// Prints a file to be used beside the one that has the apps.
    Compose,
}

/// An app, and where it listens in its container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    name: String,
    port: NonZeroU16,
}

/// What the recipe is for.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Where the apps run.
    pub place: Place,
    /// One or more.
    pub apps: Vec<App>,
    /// The apps that will call the proxies.
    pub callers: Vec<String>,
    /// The network; `None`: the place's ordinary one.
    pub network: Option<String>,
}

/// A network for the apps of a Dokku host.
const NETWORK: &str = "evenkeel";

const VERSION: &str = env!("CARGO_PKG_VERSION");

impl FromStr for App {
    type Err = String;

    /// Reads `db-checker:8080`.
    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, port)) = text.split_once(':') else {
            return Err(format!(
                "has no port: write the one that the app listens on in its container, as {text}:8080 (an image that \
                 EXPOSEs none listens on 5000 on Dokku)"
            ));
        };
        let name = self::name(name)?;
        let port = port.parse().map_err(|_| "has no port from 1 to 65535 behind its colon")?;
        Ok(App { name, port })
    }
}

/// Reads the name of an app or a network. What it may contain needs no quotes in a shell or in YAML.
///
/// # Errors
/// What it may contain.
pub fn name(text: &str) -> Result<String, String> {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match text.as_bytes() {
        [first, rest @ ..] if first.is_ascii_alphanumeric() && rest.iter().copied().all(is_inner) => {
            Ok(text.to_owned())
        }
        _ => Err("is no name: write letters, digits, '-', '_' and '.', as db-checker".to_owned()),
    }
}

impl App {
    /// What its proxy is called.
    fn proxy(&self) -> String {
        format!("{}-proxy", self.name)
    }
}

impl Recipe {
    /// The whole recipe, with comments that say what it is for.
    ///
    /// # Errors
    /// An app is named twice, or has the name of another one's proxy.
    pub fn text(&self) -> Result<String, String> {
        for (at, app) in self.apps.iter().enumerate() {
            if self.apps[..at].iter().any(|other| other.name == app.name) {
                return Err(format!("{} is named twice: one port of an app goes behind one proxy", app.name));
            }
            let taken = |name: &String| *name == app.proxy();
            if self.apps.iter().map(|other| &other.name).chain(&self.callers).any(taken) {
                return Err(format!("{} would be both an app and the proxy of {}", app.proxy(), app.name));
            }
        }
        match self.place {
            Place::Dokku => Ok(self.dokku()),
            Place::Compose if self.callers.is_empty() => Ok(self.compose()),
            Place::Compose => Err("--caller is for Dokku: in compose, who calls is on the network already".to_owned()),
        }
    }

    fn names(&self) -> String {
        self.apps.iter().map(|app| app.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn dokku(&self) -> String {
        let network = self.network.as_deref().unwrap_or(NETWORK);
        let mut attached: Vec<&str> = Vec::new();
        for name in self.apps.iter().map(|app| &app.name).chain(&self.callers) {
            if !attached.contains(&name.as_str()) {
                attached.push(name);
            }
        }
        let attached = attached.join(" ");
        let mut text = format!(
            "# Evenkeel in front of {apps}. Paste it on the Dokku host, or pipe it there: … | ssh root@HOST sh
# The image has to be there: docker save evenkeel:{VERSION} | ssh root@HOST docker load
# It stops at the first step that fails. Mend what that says and run it all again: nothing is done twice.
(
set -eu

# 1. A network on which containers know each other by name.
dokku network:exists {network} 2>/dev/null || dokku network:create {network}

# 2. The apps on it, beside the networks that they have. One of which no container is there is deployed once more.
for app in {attached}; do
  there=$(docker container ls --quiet --filter label=com.dokku.app-name=$app --filter network={network})
  if [ -z \"$there\" ]; then
    networks=$(dokku network:report $app --network-computed-attach-post-create | tr , ' ')
    case \" $networks \" in
      *\" {network} \"*) ;;
      *) dokku network:set $app attach-post-create $networks {network} ;;
    esac
    dokku ps:rebuild $app
  fi
done
",
            apps = self.names(),
        );
        for app in &self.apps {
            let (name, port, proxy) = (&app.name, app.port, app.proxy());
            let _ = write!(
                text,
                "
# 3. The proxy of {name}: an app that is not for the public. Another app of that name is left alone. One whose first deploy
#    failed is made anew: Dokku would say of its image that nothing has changed.
upstream=$(dokku config:get {proxy} UPSTREAM 2>/dev/null || true)
if [ \"$upstream\" = {name}.web:{port} ] && [ \"$(dokku ps:report {proxy} --deployed)\" != true ]; then
  dokku --force apps:destroy {proxy}
  upstream=
fi
if [ \"$upstream\" != {name}.web:{port} ]; then
  dokku apps:create {proxy}
  dokku config:set --no-restart {proxy} UPSTREAM={name}.web:{port}
fi
dokku config:set --no-restart {proxy} EVENKEEL_CONFIG=off
dokku proxy:disable {proxy}
dokku network:set {proxy} attach-post-create {network}
dokku git:from-image {proxy} evenkeel:{VERSION}

# 4. Does it find {name}? It says what it sees, and which steps are done.
dokku enter {proxy} web.1 evenkeel check
"
            );
        }
        text.push_str(")\n");
        for app in &self.apps {
            let (name, port, proxy) = (&app.name, app.port, app.proxy());
            let caller = self.callers.first().map_or("CALLER", String::as_str);
            let _ = write!(
                text,
                "
# 5. By hand: whoever calls http://{name}.web:{port}/ is told to call http://{proxy}.web/, with the same path, as
#      dokku config:set {caller} VARIABLE=http://{proxy}.web/
#    Back out: the variable as it was, and a minute later: dokku --force apps:destroy {proxy}
"
            );
        }
        text
    }

    fn compose(&self) -> String {
        let mut text = format!(
            "# Evenkeel in front of {}. Written into evenkeel.yaml, it is used beside the file that has the apps:
#   docker compose --file compose.yaml --file evenkeel.yaml up --detach
# Does it find them, and which steps are done:
#   docker compose --file compose.yaml --file evenkeel.yaml exec PROXY evenkeel check
services:
",
            self.names(),
        );
        for app in &self.apps {
            let (name, port, proxy) = (&app.name, app.port, app.proxy());
            let _ = write!(
                text,
                "  # Whoever calls http://{name}:{port}/ is told to call http://{proxy}/, with the same path.
  {proxy}:
    image: evenkeel:{VERSION}
    environment:
      UPSTREAM: \"{name}:{port}\"
    read_only: true
    cap_drop: [ALL]
    security_opt: [\"no-new-privileges:true\"]
    restart: unless-stopped
    # Longer than it takes to end: 9 s.
    stop_grace_period: 30s
"
            );
            if let Some(network) = &self.network {
                let _ = writeln!(text, "    networks: [\"{network}\"]");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(place: Place, apps: &[&str]) -> Recipe {
        let apps = apps.iter().map(|app| app.parse().unwrap()).collect();
        Recipe { place, apps, callers: Vec::new(), network: None }
    }

    #[test]
    fn what_is_no_app_is_told_what_one_is() {
        let refused = |text: &str| text.parse::<App>().unwrap_err();
        assert!(refused("db-checker").contains("as db-checker:8080"));
        for text in ["db-checker:", "db-checker:0", "db-checker:65536", "db-checker:80:80", "a:x"] {
            assert!(refused(text).contains("1 to 65535"), "{text}");
        }
        for text in [":80", "a b:80", "$(reboot):80", "-a:80", "a;b:80", "ä:80"] {
            assert!(refused(text).contains("is no name"), "{text}");
        }
    }

    #[test]
    fn an_app_is_behind_one_proxy_and_is_none() {
        for place in [Place::Dokku, Place::Compose] {
            let refused = |apps: &[&str]| recipe(place, apps).text().unwrap_err();
            assert!(refused(&["a:80", "b:80", "a:81"]).contains("a is named twice"));
            assert!(refused(&["a-proxy:80", "a:80"]).contains("a-proxy would be both"));
        }
        let calling = Recipe { callers: vec!["a-proxy".to_owned()], ..recipe(Place::Dokku, &["a:80"]) };
        assert!(calling.text().unwrap_err().contains("a-proxy would be both"));
        let calling = Recipe { callers: vec!["web".to_owned()], ..recipe(Place::Compose, &["a:80"]) };
        assert!(calling.text().unwrap_err().contains("--caller is for Dokku"));
    }
}
