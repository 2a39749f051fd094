//! Holds the order of imports: a module may use what stands below it in [`HOUSE`], never what stands above.
//!
//! Paths are found in the source text (`crate::name`, `crate::{name, …}`), comments and strings left out.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// ARCHITECTURE.md's list, from the top. Modules of one floor do not use each other, unless [`NEIGHBOURS`] says so.
const HOUSE: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["proxy"],
    &["admin"],
    &["worker"],
    &["session"],
    &["client", "server", "catalogues"],
    &["route"],
    &["topology"],
    &["cluster"],
    &[
        "net",
        "config",
        "cancels",
        "credentials",
        "error",
        "metrics",
    ],
    &["wire"],
];

/// Who may use whom on one floor. `client` and `server` do not: what both need of a login is in `credentials`.
const NEIGHBOURS: &[(&str, &str)] = &[
    ("net", "config"),
    ("net", "error"),
    ("config", "error"),
    ("credentials", "config"),
    ("credentials", "error"),
    ("metrics", "error"),
];

/// Below the floor of its users, and yet not for all of them: it makes clusters, which only commands do.
const ONLY_FOR: &[(&str, &[&str])] = &[("cluster", &["cli"])];

fn floor(module: &str) -> Option<usize> {
    HOUSE.iter().position(|floor| floor.contains(&module))
}

/// Why `user` may not use `used`; None if it may.
fn verdict(user: &str, used: &str) -> Option<String> {
    if user == used {
        return None;
    }
    let (Some(from), Some(to)) = (floor(user), floor(used)) else {
        return Some(format!(
            "`{used}` or `{user}` is not in the list of this test"
        ));
    };
    let private = ONLY_FOR
        .iter()
        .any(|(module, users)| *module == used && !users.contains(&user));
    match () {
        () if private => Some(format!("`{used}` is not for `{user}`")),
        () if from == to && !NEIGHBOURS.contains(&(user, used)) => Some("neighbours".to_owned()),
        () if from > to => Some("upwards".to_owned()),
        () => None,
    }
}

/// The text without comments, strings and character literals: each is replaced by a space.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skip = skipped(rest);
        code.push(if skip == 0 { c } else { ' ' });
        rest = &rest[skip.max(c.len_utf8())..];
    }
    code
}

/// How many bytes at the start of `rest` are a comment or a literal.
fn skipped(rest: &str) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |at| at + 2);
    }
    let hashes = rest
        .strip_prefix('r')
        .map_or(0, |raw| raw.len() - raw.trim_start_matches('#').len());
    if rest.starts_with('r') && rest[1 + hashes..].starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let body = 2 + hashes;
        return rest[body..]
            .find(&end)
            .map_or(rest.len(), |at| body + at + end.len());
    }
    match rest.as_bytes() {
        [b'"', ..] => quoted(rest, '"'),
        [b'\'', b'\\', ..] => quoted(rest, '\''),
        // `'x'`, but not the lifetime `'x`.
        [b'\'', ..] => match rest.char_indices().nth(2) {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        _ => 0,
    }
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The top modules that a source text names, below `root` (`crate`, or `pgsluice` in main).
fn used_by(code: &str, root: &str) -> BTreeSet<String> {
    let prefix = format!("{root}::");
    let starts = code.match_indices(&prefix).filter(|(at, _)| {
        let before = code[..*at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    });
    starts
        .flat_map(|(at, _)| heads(&code[at + prefix.len()..]))
        .collect()
}

/// `a` of `a::b`; `a` and `c` of `{a::{x, y}, c::d}`.
fn heads(path: &str) -> Vec<String> {
    let path = path.trim_start();
    let Some(group) = path.strip_prefix('{') else {
        return word(path).into_iter().collect();
    };
    let (mut depth, mut found, mut fresh) = (1, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => fresh = true,
            c if fresh && !c.is_whitespace() => {
                found.extend(word(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

/// A module's name at the start: items of the crate's root (macros) are none.
fn word(path: &str) -> Option<String> {
    let end = path.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    let name = &path[..end.unwrap_or(path.len())];
    let is_module = name.starts_with(|c: char| c.is_lowercase());
    let is_macro = path[name.len()..].starts_with('!');
    (is_module && !is_macro).then(|| name.to_owned())
}

fn sources(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|it| it == "rs") => found.push(path),
            false => {}
        }
    }
}

/// `session` for `session/relay.rs` and `session.rs`.
fn top_module(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str();
    first.to_str().unwrap().trim_end_matches(".rs").to_owned()
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn imports_go_down_only() {
    let mut files = Vec::new();
    sources(&src(), &mut files);
    assert!(files.len() > 10, "found {} files only", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let inside = file.strip_prefix(src()).unwrap();
        let user = top_module(inside);
        if user == "lib" {
            continue;
        }
        let root = if user == "main" { "pgsluice" } else { "crate" };
        let code = code_only(&fs::read_to_string(&file).unwrap());
        let bad = used_by(&code, root).into_iter().filter_map(|used| {
            verdict(&user, &used).map(|why| format!("{}: {root}::{used}: {why}", inside.display()))
        });
        wrong.extend(bad);
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_module_of_the_crate_has_a_place_in_the_list() {
    let lib = fs::read_to_string(src().join("lib.rs")).unwrap();
    let modules = code_only(&lib);
    for module in modules.split("mod ").skip(1).filter_map(word) {
        assert!(floor(&module).is_some(), "`{module}` is not in the list");
    }
}

#[test]
fn an_upward_import_a_neighbour_and_a_private_module_are_refused() {
    let cases = [
        ("wire", "net", Some("upwards")),
        ("topology", "session", Some("upwards")),
        ("client", "server", Some("neighbours")),
        ("server", "client", Some("neighbours")),
        ("config", "net", Some("neighbours")),
        ("worker", "cluster", Some("`cluster` is not for `worker`")),
        ("cli", "cluster", None),
        ("session", "server", None),
        ("net", "error", None),
        ("wire", "wire", None),
    ];
    for (user, used, expected) in cases {
        assert_eq!(
            verdict(user, used).as_deref(),
            expected,
            "{user} uses {used}"
        );
    }
}

#[test]
fn used_modules_are_found_in_all_spellings_and_not_in_comments_or_strings() {
    let text = r##"
        //! crate::comment
        use crate::{config::{self, Config}, net::{bind,
            tls}, wire};
        use crate::error::Error; /* crate::block */
        fn f<'a>(x: &'a str) -> crate::server::Pool { "crate::string \" crate::more"; r#"crate::raw"#; '"'; '\'' ;
            crate::topology::Role::Primary; mycrate::other; crate::Root; $crate::macro_name!() }
    "##;
    let expected = ["config", "error", "net", "server", "topology", "wire"];
    let found = used_by(&code_only(text), "crate");
    assert_eq!(
        found.iter().map(String::as_str).collect::<Vec<_>>(),
        expected
    );
}
