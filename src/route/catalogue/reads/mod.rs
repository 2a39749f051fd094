//! What may run on a replica: which functions, relations, types and operators a proven read may name.
//!
//! Names again, and a graph of them: a name is unfit if an object that bears it is, or reaches one that is. A function
//! reaches what its body names, a view what its query does, a table its partitions, policies and virtual columns, an
//! operator or cast its function, a domain what its checks name. Texts are read word by word as statements are
//! ([`crate::route::class`]), so that both are held to the same law.

mod desk;

use std::collections::{HashMap, HashSet};

use crate::route::{
    Context,
    class::{Place, Reason},
    fingerprint::{self, Fingerprint},
};
pub(super) use desk::judge;

/// Why an object needs the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::route) struct Cause {
    pub reason: Reason,
    /// What it was found in: the object itself, or one that it reaches.
    pub object: Box<[u8]>,
}

/// What is known against a name, as what it may stand for: indexes of causes.
#[derive(Debug, Clone, Copy, Default)]
struct Unfit {
    function: Option<u32>,
    relation: Option<u32>,
    domain: Option<u32>,
}

/// What was proven of one database's objects; immutable.
#[derive(Debug, Default)]
pub struct Reads {
    causes: Vec<Cause>,
    unfit: HashMap<Box<[u8]>, Unfit>,
    operators: HashMap<Box<[u8]>, u32>,
    /// Every relation that there is.
    relations: HashSet<Box<[u8]>>,
    unfit_relations: usize,
    /// Names that are unfit and may be spelt otherwise by a client with another encoding.
    elsewhere: Option<u32>,
    /// What may be reached without being named.
    anything: Option<u32>,
    /// Built-in functions that the configuration lets run anywhere.
    allowed: HashSet<Box<[u8]>>,
    /// Where the configuration has statements of these shapes run.
    statements: HashMap<Fingerprint, Place>,
}

/// What a name stands for where it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::route) enum Role {
    /// It is called, or stands behind a dot.
    Called,
    /// It may be a type, a column, a label.
    Plain,
}

impl Reads {
    /// Where the configuration has this text run.
    pub(in crate::route) fn place_of(&self, text: &[u8], context: &Context) -> Option<Place> {
        if self.statements.is_empty() {
            return None;
        }
        let shape = fingerprint::lasting(text, context)?;
        self.statements.get(&shape).copied()
    }

    /// What is known against a function's or type's name that is folded already.
    pub(in crate::route) fn against(&self, name: &[u8], role: Role) -> Option<&Cause> {
        if let Some(cause) = self.elsewhere.filter(|_| !name.is_ascii()) {
            return Some(self.cause(cause));
        }
        let unfit = self.unfit.get(name)?;
        let called = unfit.function.filter(|_| role == Role::Called);
        called.or(unfit.domain).map(|cause| self.cause(cause))
    }

    /// The same for what may be a relation's name.
    pub(in crate::route) fn against_relation(&self, name: &[u8]) -> Option<&Cause> {
        let unfit = self.unfit.get(name)?;
        unfit.relation.map(|cause| self.cause(cause))
    }

    pub(in crate::route) fn has_relation(&self, name: &[u8]) -> bool {
        self.relations.contains(name)
    }

    pub(in crate::route) fn against_operator(&self, symbol: &[u8]) -> Option<&Cause> {
        self.operators.get(symbol).map(|cause| self.cause(*cause))
    }

    /// What every statement may reach.
    pub(in crate::route) fn against_all(&self) -> Option<&Cause> {
        self.anything.map(|cause| self.cause(cause))
    }

    /// Whether a built-in function may be called anywhere, by the configuration.
    pub(in crate::route) fn allows(&self, name: &[u8]) -> bool {
        self.allowed.contains(name)
    }

    fn cause(&self, index: u32) -> &Cause {
        &self.causes[index as usize]
    }

    pub(super) fn readable_relations(&self) -> usize {
        self.relations.len() - self.unfit_relations
    }

    pub(super) fn unfit_functions(&self) -> usize {
        self.unfit
            .values()
            .filter(|unfit| unfit.function.is_some())
            .count()
    }
}
