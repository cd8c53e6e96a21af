//! A real browser without a screen, for pages: Chromium, spoken to by its DevTools protocol over a pair of pipes.

use crate::Process;
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use tempfile::TempDir;

/// Names under which Chromium is installed.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A browser with one page. Closed when dropped.
#[derive(Debug)]
pub struct Browser {
    pipes: Mutex<Pipes>,
    session: String,
    _process: Process,
    // Last: the process writes there until its end.
    _folder: TempDir,
}

#[derive(Debug)]
struct Pipes {
    to: File,
    from: BufReader<File>,
    id: u64,
}

impl Pipes {
    /// Sends a command and waits for its result; events on the way are dropped. `Err`: why there is none.
    fn call(&mut self, session: Option<&str>, method: &str, params: Value) -> Result<Value, String> {
        self.id += 1;
        let mut message = json!({ "id": self.id, "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        // Messages end with a zero byte.
        self.to.write_all(format!("{message}\0").as_bytes()).expect("the browser listens");
        loop {
            let mut answer = Vec::new();
            self.from.read_until(0, &mut answer).expect("the browser answers");
            assert_eq!(answer.pop(), Some(0), "the browser has ended");
            let answer: Value = serde_json::from_slice(&answer).expect("JSON");
            if answer["id"] == self.id {
                let failed = !answer["error"].is_null();
                return if failed { Err(format!("{method}: {answer}")) } else { Ok(answer["result"].clone()) };
            }
        }
    }
}

impl Browser {
    /// Whether one is installed here.
    pub fn is_installed() -> bool {
        name().is_some()
    }

    /// Opens `url`. `width` and `height` are the window's, in CSS pixels; `dark`: what the user prefers; `scripts`: whether
    /// they run.
    ///
    /// # Panics
    /// When no browser is installed, or it does not start.
    pub fn open(url: &str, (width, height): (u32, u32), dark: bool, scripts: bool) -> Browser {
        let name = name().expect("a browser is installed");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |part: &str| folder.path().join(part);
        for pipe in ["to", "from"] {
            let made = Command::new("mkfifo").arg(path(pipe)).status().expect("mkfifo runs");
            assert!(made.success(), "no pipe was made");
        }
        let mut command = Command::new("sh");
        // The browser's own profile, and nothing of it talks to anybody else. Root has no sandbox to offer. A browser that
        // hangs is ended, so that no test waits for it for ever.
        let script = "exec timeout --foreground 120 \"$0\" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
                      --disable-background-networking --disable-component-update --remote-debugging-pipe \
                      --user-data-dir=profile about:blank 3<to 4>from";
        command.args(["-c", script, name]).current_dir(folder.path()).env("HOME", folder.path());
        let process = Process::spawn("browser", command).expect("a shell starts");
        // In the shell's order: each waits for the other end.
        let to = OpenOptions::new().write(true).open(path("to")).expect("a pipe");
        let from = File::open(path("from")).expect("a pipe");
        let mut pipes = Pipes { to, from: BufReader::new(from), id: 0 };
        let target = pipes.call(None, "Target.createTarget", json!({ "url": "about:blank" })).expect("a page");
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = pipes.call(None, "Target.attachToTarget", attach).expect("it is there")["sessionId"]
            .as_str()
            .expect("a session")
            .to_owned();
        let browser = Browser { pipes: Mutex::new(pipes), session, _process: process, _folder: folder };
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        browser.call("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = if dark { "dark" } else { "light" };
        let feature = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        browser.call("Emulation.setEmulatedMedia", feature);
        browser.call("Emulation.setScriptExecutionDisabled", json!({ "value": !scripts }));
        browser.call("Page.enable", json!({}));
        browser.call("Page.navigate", json!({ "url": url }));
        browser
    }

    /// The text that a reader of the page sees.
    pub fn text(&self) -> String {
        self.value("document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// What this expression of JavaScript is in the page; null while another page is on its way. Works also where the page's
    /// own scripts do not run.
    pub fn value(&self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true });
        self.try_call("Runtime.evaluate", params).map_or(Value::Null, |result| result["result"]["value"].clone())
    }

    /// Presses and releases a key, by its name in the DOM.
    pub fn press(&self, key: &str, code: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let params = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", params);
        }
    }

    /// A picture of the page from its top, as PNG in base64.
    pub fn picture(&self) -> String {
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        picture["data"].as_str().expect("a picture").to_owned()
    }

    fn call(&self, method: &str, params: Value) -> Value {
        self.try_call(method, params).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_call(&self, method: &str, params: Value) -> Result<Value, String> {
        self.pipes.lock().unwrap_or_else(|e| e.into_inner()).call(Some(&self.session), method, params)
    }
}

fn name() -> Option<&'static str> {
    let runs = |name: &&str| {
        let version = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    };
    NAMES.into_iter().find(runs)
}
