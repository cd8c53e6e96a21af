//! Leaves nothing behind when a test process dies without running its destructors (SIGINT, SIGKILL, an abort).
//!
//! One small shell, started with the first child, reads what there is to clean up from a pipe. When this process ends,
//! however it ends, the pipe closes and the shell kills the process groups and removes the folders that are still
//! listed. (`PR_SET_PDEATHSIG` would not do: it follows the *thread* that spawned, and needs unsafe code.)

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};

/// Kills this process group when we die; see [`release`].
pub(crate) fn watch(group: u32) {
    tell(&format!("watch {group}"));
}

/// The group is gone: its number may soon be somebody else's.
pub(crate) fn release(group: u32) {
    tell(&format!("release {group}"));
}

/// Removes this folder when we die. `path` comes from `tempfile` and holds no white space of its own making; a
/// `TMPDIR` with a line break is not supported.
pub(crate) fn watch_folder(path: &Path) {
    tell(&format!("folder {}", path.display()));
}

/// Removes this container when we die; see [`release_container`].
pub(crate) fn watch_container(name: &str) {
    tell(&format!("container {name}"));
}

/// The container is gone.
pub(crate) fn release_container(name: &str) {
    tell(&format!("gone {name}"));
}

/// Removes this network of a Docker Engine when we die; see [`release_network`].
pub(crate) fn watch_network(name: &str) {
    tell(&format!("network {name}"));
}

/// The network is gone.
pub(crate) fn release_network(name: &str) {
    tell(&format!("gone {name}"));
}

// QUIT before KILL: it is PostgreSQL's immediate stop, which frees its shared memory.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
groups=' ' containers=' ' networks=' '
without() { case $1 in *" $2 "*) printf '%s' "${1%% $2 *} ${1#* $2 }" ;; *) printf '%s' "$1" ;; esac; }
while read -r verb what; do
  case $verb in
    watch) groups="$groups$what " ;;
    release) groups="$(without "$groups" "$what")" ;;
    container) containers="$containers$what " ;;
    network) networks="$networks$what " ;;
    gone) containers="$(without "$containers" "$what")" networks="$(without "$networks" "$what")" ;;
    folder) folders="$folders$what
" ;;
  esac
done
for g in $groups; do kill -s CONT -- "-$g"; kill -s QUIT -- "-$g"; done
[ "$groups" = ' ' ] || sleep 0.3
for g in $groups; do kill -s KILL -- "-$g"; done
[ "$containers" = ' ' ] || docker rm --force $containers
[ "$networks" = ' ' ] || docker network rm $networks
printf %s "$folders" | while read -r f; do rm -rf -- "$f"; done
"#;

fn tell(line: &str) {
    static GUARD: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let guard = GUARD.get_or_init(|| Mutex::new(start()));
    let mut pipe = guard.lock().unwrap_or_else(|e| e.into_inner());
    // A guard that somebody killed is no reason to fail a test.
    let _ = writeln!(pipe, "{line}");
}

#[allow(clippy::zombie_processes)] // it ends after us: there is nobody left to wait
fn start() -> ChildStdin {
    let mut child = Command::new("/bin/sh")
        .args(["-c", SCRIPT])
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("every machine that runs these tests has /bin/sh");
    child.stdin.take().expect("it was asked for")
}
