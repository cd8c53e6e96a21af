//! What the manifests say that no schema knows.

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
