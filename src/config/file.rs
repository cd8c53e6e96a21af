//! Which file it is, and its text.

use super::{ConfigError, Env, FileText, limits};
use nix::libc::O_NONBLOCK;
use std::fs::{FileType, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// In place of a file's name: the environment is the whole configuration, although there is a `proxy.toml`. A file of
/// that name is `./off`.
const OFF: &str = "off";

/// The file to read, and whether somebody named it, so that it must be there.
pub(super) fn path(path: Option<&Path>, env: Env<'_>) -> (PathBuf, bool) {
    let named = path.map(Path::to_path_buf);
    match named.or_else(|| env("EVENKEEL_CONFIG").filter(|name| !name.is_empty()).map(PathBuf::from)) {
        Some(path) => (path, true),
        None => (PathBuf::from("proxy.toml"), false),
    }
}

/// The file's name and text; `None` if there is none and nobody named one, or [`OFF`] was named.
pub(super) fn read(explicit: Option<&Path>, env: Env<'_>) -> Result<Option<FileText>, ConfigError> {
    let (path, named) = path(explicit, env);
    if named && path.as_os_str() == OFF {
        return Ok(None);
    }
    let name = path.display().to_string();
    let fail = |message: String| Err(ConfigError::one(format!("{name}: {message}")));

    let bytes = match read_regular(&path) {
        Ok(bytes) => bytes,
        Err(ReadError::Io(error)) if error.kind() == ErrorKind::NotFound && !named => return Ok(None),
        Err(ReadError::TooLong) => {
            return fail(format!("is over {} KiB; is it a configuration?", limits::FILE >> 10));
        }
        Err(ReadError::Kind(kind)) if kind.is_dir() => {
            return fail(format!(
                "is a directory; name the file in it, as {}. (Docker makes a directory where a file to be mounted does \
                 not exist.)",
                path.join("proxy.toml").display()
            ));
        }
        Err(ReadError::Kind(kind)) => {
            return fail(format!("is {}, which is not read; write the configuration to a regular file", spell(kind)));
        }
        Err(ReadError::Io(error)) => {
            return fail(match error.kind() {
                ErrorKind::NotFound => {
                    "there is no such file; mend --config or EVENKEEL_CONFIG, or leave both out and \
                                        set UPSTREAM=host:port"
                        .into()
                }
                ErrorKind::PermissionDenied => {
                    format!("may not be read by the user this runs as ({error}); chmod a+r it, and a+x its directories")
                }
                _ => format!("cannot be read: {error}"),
            });
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(FileText { name, text })),
        Err(error) => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
            fail(format!("line {line} is not UTF-8; save the file as UTF-8"))
        }
    }
}

enum ReadError {
    Io(io::Error),
    /// Not a regular file.
    Kind(FileType),
    TooLong,
}

/// The bytes of a regular file of at most [`limits::FILE`]. A FIFO without a writer would block the reader for ever and a
/// device may have no end, so neither is read; opening without blocking is what gets past a FIFO to its type.
fn read_regular(path: &Path) -> Result<Vec<u8>, ReadError> {
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).map_err(ReadError::Io)?;
    let kind = file.metadata().map_err(ReadError::Io)?.file_type();
    if !kind.is_file() {
        return Err(ReadError::Kind(kind));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed shows that there is more, whatever the length was when it was opened.
    file.take(limits::FILE as u64 + 1).read_to_end(&mut bytes).map_err(ReadError::Io)?;
    if bytes.len() > limits::FILE { Err(ReadError::TooLong) } else { Ok(bytes) }
}

fn spell(kind: FileType) -> &'static str {
    match () {
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () => "no regular file",
    }
}
