//! `cluster.json`: what a cluster's directory holds, so that a later run can go on from wherever an earlier one stopped.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::error::{Error, Result, io_at};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Of PostgreSQL.
    pub major: u32,
    pub nodes: Vec<NodeRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeRecord {
    pub name: String,
    pub port: u16,
    pub stage: Stage,
}

/// How far the making of a node has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Stage {
    /// Its directory may be half written: it is made anew.
    Making,
    Made,
}

impl Record {
    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join("cluster.json")
    }

    /// None if there is no such file.
    pub(super) fn read(dir: &Path) -> Result<Option<Record>> {
        let path = Record::path(dir);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_at("cannot read", path)(e)),
        };
        let bad = |why: serde_json::Error| Error::BadRecord {
            path,
            why: why.to_string(),
        };
        serde_json::from_str(&text).map(Some).map_err(bad)
    }

    /// Whole or not at all.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let path = Record::path(dir);
        let bad = |why: serde_json::Error| Error::BadRecord {
            path: path.clone(),
            why: why.to_string(),
        };
        let text = serde_json::to_string_pretty(self).map_err(bad)?;
        let fresh = path.with_extension("json.new");
        fs::write(&fresh, text).map_err(io_at("cannot write", &fresh))?;
        fs::rename(&fresh, &path).map_err(io_at("cannot write", &path))
    }
}
