//! The files for Docker repeat some things that the program knows too: they must agree.

use std::{fs, path::Path};

use pgsluice::{client::verifier::lookup_sql, config};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn the_lookup_function_is_the_one_that_the_program_calls() {
    let file = read("docker/primary/20-lookup.sql");
    assert!(file.ends_with(&lookup_sql("pgsluice_auth")), "{file}");
}

#[test]
fn the_configuration_is_good_once_its_passwords_are_there() {
    let text = read("docker/pgsluice.toml");
    // Tests run in parallel: the environment is not theirs to change.
    let text = text.replace("password_env = ", "password = ");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pgsluice.toml");
    fs::write(&path, text).unwrap();
    let loaded = config::load(&path).unwrap_or_else(|e| panic!("{}", e.render(false)));
    let names: Vec<&str> = loaded
        .config
        .nodes
        .iter()
        .map(|n| n.name.as_str())
        .collect();
    let compose = read("docker-compose.yml");
    assert_eq!(names, ["primary", "replica1", "replica2"]);
    assert!(
        names
            .iter()
            .all(|name| compose.contains(&format!("\n  {name}:\n")))
    );
}
