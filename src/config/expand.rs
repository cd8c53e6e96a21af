//! `${NAME}`, `${NAME:-default}` and `$$` in strings.
//!
//! As in a shell and in Compose, a variable that is set but empty takes the default. What comes from the environment is
//! taken as it is, never expanded again.

use super::Env;
use std::borrow::Cow;

/// `text` with its variables filled in. `named` is told each variable's name.
///
/// # Errors
/// What is wrong and what to write instead, to be put behind the key and its value.
pub(super) fn expand<'a>(text: &'a str, env: Env<'_>, mut named: impl FnMut(&str)) -> Result<Cow<'a, str>, String> {
    let Some(first) = text.find('$') else { return Ok(text.into()) };
    let mut out = text[..first].to_owned();
    let mut rest = &text[first..];
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let Some(inner) = rest.strip_prefix('{') else {
            return Err("has a lone $; write ${NAME} for a variable, $$ for a dollar".into());
        };
        let Some(end) = inner.find('}') else {
            return Err("has a ${ without its }; close it, or write $$ for a dollar".into());
        };
        let (name, default) = match inner[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&inner[..end], None),
        };
        if !is_name(name) {
            return Err(format!(
                "names a variable {name:?}, which no variable can be called; write ${{NAME}} or ${{NAME:-default}}, \
                 with letters, digits and _"
            ));
        }
        if default.is_some_and(|default| default.contains('$')) {
            return Err(format!("has a $ in the default of {name}; a default is plain text"));
        }
        named(name);
        match (env(name), default) {
            (Some(value), Some(default)) if value.is_empty() => out.push_str(default),
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => {
                return Err(format!(
                    "needs the variable {name}, which is not set; set it, or write a default: ${{{name}:-…}}"
                ));
            }
        }
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    Ok(out.into())
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
