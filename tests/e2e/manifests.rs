//! What the manifests say that no schema knows.

use std::path::Path;

/// The text of a YAML block scalar, by its key.
fn block<'a>(yaml: &'a str, key: &str) -> impl Iterator<Item = &'a str> {
    let mut lines = yaml.lines().skip_while(move |line| !line.trim_start().starts_with(key)).skip(1).peekable();
    let indent = lines.peek().map_or(0, |line| line.len() - line.trim_start().len());
    lines.take_while(|line| *line != "---").map(move |line| line.get(indent..).unwrap_or_default())
}

#[test]
fn the_configuration_in_the_kubernetes_manifest_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proxy.toml");
    let text =
        block(include_str!("../../deploy/kubernetes/proxy.yaml"), "proxy.toml: |").collect::<Vec<_>>().join("\n");
    assert!(text.contains("[upstream.db-checker]"), "{text}");
    std::fs::write(&file, text).unwrap();
    let said = std::process::Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .args(["check", "--config"])
        .arg(&file)
        .env("RUST_LOG", "off")
        .output()
        .unwrap();
    // There is no such name here, and `check` says so; what it must not find is a fault of the file's.
    let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.contains("proxy.toml: valid, 1 upstream"), "{said}");
}

/// The versions that stand in `text` right behind `words`.
fn versions<'a>(text: &'a str, words: &str) -> Vec<&'a str> {
    let behind = text.match_indices(words).map(|(at, _)| &text[at + words.len()..]);
    let version = |rest: &'a str| {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        rest[..end].trim_end_matches('.')
    };
    behind.map(version).filter(|v| v.split('.').count() == 3 && v.starts_with(|c: char| c.is_ascii_digit())).collect()
}

/// Every file below `folder`, by its name from the repository's root.
fn files(folder: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![];
    for entry in std::fs::read_dir(root.join(folder)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() { found.extend(files(&name)) } else { found.push(name) }
    }
    found
}

#[test]
fn whatever_names_a_version_names_that_of_the_manifest() {
    let version = env!("CARGO_PKG_VERSION");
    // A picture names none, whatever its bytes are.
    let bytes = |name: &str| std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let read = |name: &str| String::from_utf8_lossy(&bytes(name)).into_owned();
    // Where one has to stand, and behind what.
    for (file, words) in [
        ("Dockerfile", "org.opencontainers.image.version=\""),
        ("CHANGELOG.md", "\n## "),
        ("deploy/dokku-plugin/plugin.toml", "\nversion = \""),
        ("deploy/kubernetes/proxy.yaml", "image: evenkeel:"),
        ("deploy/kubernetes/db-checker.yaml", "image: evenkeel-db-checker:"),
        ("docs/deploy.md", "image: evenkeel:"),
        ("README.md", "evenkeel:"),
        ("Cargo.lock", "name = \"evenkeel\"\nversion = \""),
        ("Cargo.lock", "name = \"testbed\"\nversion = \""),
        ("Cargo.lock", "name = \"web\"\nversion = \""),
        ("Cargo.lock", "name = \"db-checker\"\nversion = \""),
    ] {
        let text = read(file);
        // The newest comes first.
        assert_eq!(versions(&text, words).first(), Some(&version), "{file}, behind {words:?}");
    }
    // And wherever else an image or a file of a release is named; `--image` is the way to another one.
    let manuals = ["README.md", "CONTRIBUTING.md", "Dockerfile", "compose.yaml"].map(String::from);
    for file in manuals.into_iter().chain(files("docs")).chain(files("deploy")) {
        let text = read(&file).replace("--image evenkeel:", "");
        for words in ["evenkeel:", "evenkeel-", "evenkeel_"] {
            let named = versions(&text, words);
            assert!(named.iter().all(|named| *named == version), "{file} names {named:?} behind {words:?}");
        }
    }
}
