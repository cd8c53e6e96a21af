//! Which file it is, and its text.

use super::{ConfigError, Env, limits};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The file to read, and whether somebody named it, so that it must be there.
pub(super) fn path(path: Option<&Path>, env: Env<'_>) -> (PathBuf, bool) {
    let named = path.map(Path::to_path_buf);
    match named.or_else(|| env("EVENKEEL_CONFIG").filter(|name| !name.is_empty()).map(PathBuf::from)) {
        Some(path) => (path, true),
        None => (PathBuf::from("proxy.toml"), false),
    }
}

/// The file's name and text; `None` if there is none and nobody named one.
pub(super) fn read(explicit: Option<&Path>, env: Env<'_>) -> Result<Option<(String, String)>, ConfigError> {
    let (path, named) = path(explicit, env);
    let name = path.display().to_string();
    let fail = |message: String| Err(ConfigError::one(format!("{name}: {message}")));

    let mut bytes = Vec::new();
    // One byte more than allowed shows that there is more; a device or a pipe has no length to ask for.
    let read = File::open(&path).and_then(|file| file.take(limits::FILE as u64 + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound && !named => return Ok(None),
        Err(error) => {
            return fail(match error.kind() {
                ErrorKind::NotFound => {
                    "there is no such file; mend --config or EVENKEEL_CONFIG, or leave both out and \
                                        set UPSTREAM=host:port"
                        .into()
                }
                ErrorKind::IsADirectory => format!(
                    "is a directory; name the file in it, as {}. (Docker makes a directory where a file to be mounted \
                     does not exist.)",
                    path.join("proxy.toml").display()
                ),
                ErrorKind::PermissionDenied => {
                    format!("may not be read by the user this runs as ({error}); chmod a+r it, and a+x its directories")
                }
                _ => format!("cannot be read: {error}"),
            });
        }
    }
    if bytes.len() > limits::FILE {
        return fail(format!("is over {} bytes; is it a configuration?", limits::FILE));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some((name, text))),
        Err(error) => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
            fail(format!("line {line} is not UTF-8; save the file as UTF-8"))
        }
    }
}
