//! From what was read to what is proven: bodies are read once, then harm spreads along a graph of names.
//!
//! Three kinds of nodes: calling a function of this name, naming this relation at all, and writing in a statement that
//! names it.

use std::collections::{HashMap, HashSet};

use super::{
    By, Catalogue, Facts, Filter, Function, Harm, Known, Reads,
    body::{self, Own},
    graph::{Graph, Numbers},
    reads, written,
};
use crate::route::{
    class::Place,
    effects::PinReason,
    fingerprint::Fingerprint,
    functions::{self, Verdict},
};

/// What the configuration says of functions and tables, by `name` or `schema.name`.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    harmless: HashSet<String>,
    functions: HashMap<String, Place>,
    tables: HashMap<String, Place>,
    statements: HashMap<Fingerprint, Place>,
}

impl Rules {
    /// Functions to be taken for harmless.
    pub fn new(harmless: &[String]) -> Self {
        Rules {
            harmless: harmless.iter().cloned().collect(),
            ..Rules::default()
        }
    }

    /// Where a function is to run; one that may run anywhere writes nothing, and leaves nothing behind.
    pub fn place_function(&mut self, name: &str, place: Place) {
        self.functions.insert(name.to_owned(), place);
    }

    /// Where a table, view or the like is to be read.
    pub fn place_table(&mut self, name: &str, place: Place) {
        self.tables.insert(name.to_owned(), place);
    }

    /// Where statements of a shape are to run.
    pub fn place_statement(&mut self, shape: Fingerprint, place: Place) {
        self.statements.insert(shape, place);
    }

    pub(super) fn of_statements(&self) -> &HashMap<Fingerprint, Place> {
        &self.statements
    }

    fn trust(&self, function: &Function) -> bool {
        let place = self.of_function(&function.schema, &function.name);
        if place == Some(Place::Anywhere) {
            return true;
        }
        if self.harmless.is_empty() {
            return false;
        }
        let qualified = format!("{}.{}", function.schema, function.name);
        self.harmless.contains(&function.name) || self.harmless.contains(&qualified)
    }

    pub(super) fn of_function(&self, schema: &str, name: &str) -> Option<Place> {
        find(&self.functions, schema, name)
    }

    pub(super) fn of_table(&self, schema: &str, name: &str) -> Option<Place> {
        find(&self.tables, schema, name)
    }

    /// Built-in functions that may be called anywhere, or only on the primary.
    pub(super) fn built_in(&self, place: Place) -> impl Iterator<Item = &str> {
        let ruled = self.functions.iter().filter(move |(_, p)| **p == place);
        ruled.filter_map(|(name, _)| {
            let name = name.strip_prefix("pg_catalog.").unwrap_or(name);
            (!name.contains('.')).then_some(name)
        })
    }
}

/// The qualified name counts first.
fn find(places: &HashMap<String, Place>, schema: &str, name: &str) -> Option<Place> {
    if places.is_empty() {
        return None;
    }
    let qualified = places.get(&format!("{schema}.{name}"));
    qualified.or_else(|| places.get(name)).copied()
}

/// Reads every body and follows every call. Takes time linear in what was read.
pub fn judge(facts: &Facts, rules: &Rules, server_major: u8) -> Catalogue {
    let desk = Desk::new(facts, rules);
    let own = desk.read(facts, rules, server_major);
    let mut graph = desk.graph(facts, &own);
    let reached = desk.reach(facts, &mut graph);
    let mut catalogue = desk.conclude(&graph, &own, reached);
    catalogue.reads = reads::judge(facts, &catalogue, rules, server_major);
    catalogue
}

struct Desk {
    functions: Numbers,
    relations: Numbers,
    /// The name of each function, by its oid.
    names: HashMap<u32, u32>,
    /// C code is taken on trust where nothing names it.
    in_c: HashSet<u32>,
    trusted: HashSet<u32>,
    /// Names of functions that may be called with one argument.
    attributes: HashSet<u32>,
}

/// What runs without a relation's name.
#[derive(Default)]
struct Everywhere {
    anything: Vec<Option<u32>>,
    defining: Vec<Option<u32>>,
    /// Nodes that are harmful by a built-in function.
    harmful: Vec<u32>,
}

impl Desk {
    fn new(facts: &Facts, rules: &Rules) -> Self {
        let mut desk = Desk {
            functions: Numbers::default(),
            relations: Numbers::default(),
            names: HashMap::with_capacity(facts.functions.len()),
            in_c: HashSet::new(),
            trusted: HashSet::new(),
            attributes: HashSet::new(),
        };
        for function in &facts.functions {
            let number = desk.functions.add(written(&function.name));
            desk.names.insert(function.oid, number);
            if function.is_in_c() {
                desk.in_c.insert(function.oid);
            }
            if rules.trust(function) {
                desk.trusted.insert(function.oid);
            }
            if function.takes_argument {
                desk.attributes.insert(number);
            }
        }
        for reached in &facts.reached {
            if let By::Naming(name) | By::Index(name) | By::Writing(name) = &reached.by {
                desk.relations.add(written(name));
            }
        }
        for (user, used) in &facts.relations {
            desk.relations.add(written(user));
            desk.relations.add(written(used));
        }
        desk
    }

    fn read(&self, facts: &Facts, rules: &Rules, server_major: u8) -> Vec<(u32, Own)> {
        let known = |part: &Option<u32>| part.is_some_and(|oid| self.names.contains_key(&oid));
        let broken = facts.parts.iter().filter(|(_, part)| !known(part));
        let broken: HashSet<u32> = broken.map(|(whole, _)| *whole).collect();
        let read = |function: &Function| {
            let own = match rules.trust(function) {
                true => Own::default(),
                false if broken.contains(&function.oid) => Own::harmful(PinReason::OpaqueFunction),
                false => body::read(function, &self.functions, &self.relations, server_major),
            };
            (self.names[&function.oid], own)
        };
        facts.functions.iter().map(read).collect()
    }

    fn naming(&self, relation: u32) -> u32 {
        self.functions.len() as u32 + relation
    }

    fn writing(&self, relation: u32) -> u32 {
        self.naming(relation) + self.relations.len() as u32
    }

    fn graph(&self, facts: &Facts, own: &[(u32, Own)]) -> Graph {
        let mut graph = Graph::new(self.functions.len() + 2 * self.relations.len());
        for (name, own) in own {
            for &called in &own.called {
                graph.edge(*name, called);
            }
            for &relation in &own.named {
                graph.edge(*name, self.naming(relation));
                if own.writes {
                    graph.edge(*name, self.writing(relation));
                }
            }
        }
        for (whole, part) in &facts.parts {
            let part = part.and_then(|oid| self.names.get(&oid));
            if let (Some(&whole), Some(&part)) = (self.names.get(whole), part) {
                graph.edge(whole, part);
            }
        }
        for (user, used) in &facts.relations {
            let numbers = (self.relation(user), self.relation(used));
            if let (Some(user), Some(used)) = numbers {
                graph.edge(self.naming(user), self.naming(used));
                graph.edge(self.writing(user), self.writing(used));
            }
        }
        graph
    }

    fn relation(&self, name: &str) -> Option<u32> {
        self.relations.get(&written(name))
    }

    fn reach(&self, facts: &Facts, graph: &mut Graph) -> Everywhere {
        let mut everywhere = Everywhere::default();
        for reached in &facts.reached {
            let function = reached.function;
            let lenient = matches!(reached.by, By::Anything | By::Index(_));
            if function.is_some_and(|oid| {
                self.trusted.contains(&oid) || (lenient && self.in_c.contains(&oid))
            }) {
                continue;
            }
            let name = function.and_then(|oid| self.names.get(&oid).copied());
            let node = match &reached.by {
                By::Naming(relation) | By::Index(relation) => {
                    self.relation(relation).map(|r| self.naming(r))
                }
                By::Writing(relation) => self.relation(relation).map(|r| self.writing(r)),
                By::Anything => {
                    everywhere.anything.push(name);
                    None
                }
                By::Defining => {
                    everywhere.defining.push(name);
                    None
                }
            };
            match (node, name) {
                (Some(node), Some(name)) => graph.edge(node, name),
                (Some(node), None) => everywhere.harmful.push(node),
                (None, _) => {}
            }
        }
        everywhere
    }

    fn conclude(self, graph: &Graph, own: &[(u32, Own)], everywhere: Everywhere) -> Catalogue {
        let nodes = self.functions.len() + 2 * self.relations.len();
        let mut pins: Vec<Option<PinReason>> = vec![None; nodes];
        let mut advances: Vec<Option<()>> = vec![None; nodes];
        let mut changes: Vec<Option<()>> = vec![None; nodes];
        for (name, own) in own {
            let name = *name as usize;
            pins[name] = pins[name].or(own.pin);
            advances[name] = advances[name].or(own.advances_sequence.then_some(()));
            changes[name] = changes[name].or(own.changes_catalogue.then_some(()));
        }
        for node in everywhere.harmful {
            pins[node as usize].get_or_insert(PinReason::OpaqueFunction);
        }
        graph.spread(&mut pins);
        graph.spread(&mut advances);
        graph.spread(&mut changes);
        let of = |list: &[Option<u32>]| {
            list.iter().find_map(|name| match name {
                Some(name) => pins[*name as usize],
                None => Some(PinReason::OpaqueFunction),
            })
        };
        let (anything, defining) = (of(&everywhere.anything), of(&everywhere.defining));
        let relations = self.harms(&pins);
        let mut functions = HashMap::with_capacity(self.functions.len());
        let mut attributes = HashSet::new();
        for (name, number) in self.functions.into_names() {
            let known = Known {
                pin: pins[number as usize],
                advances_sequence: advances[number as usize].is_some(),
                changes_catalogue: changes[number as usize].is_some(),
            };
            if known.pin.is_some() && self.attributes.contains(&number) {
                attributes.insert(name.clone());
            }
            functions.insert(name, known);
        }
        Catalogue {
            shadows: functions.iter().any(|(name, known)| {
                known.pin.is_some() && functions::verdict(name, u8::MAX) != Verdict::Unknown
            }),
            elsewhere: elsewhere(&relations),
            relation_filter: Filter::of(relations.keys()),
            attribute_filter: Filter::of(attributes.iter()),
            functions,
            relations,
            attributes,
            anything,
            defining,
            reads: Reads::default(),
        }
    }

    /// The relations whose naming reaches something harmful.
    fn harms(&self, pins: &[Option<PinReason>]) -> HashMap<Box<[u8]>, Harm> {
        let mut harms = HashMap::new();
        for (name, number) in self.relations.iter() {
            let harm = Harm {
                naming: pins[self.naming(number) as usize].is_some(),
                writing: pins[self.writing(number) as usize].is_some(),
            };
            if harm != Harm::default() {
                harms.insert(name.into(), harm);
            }
        }
        harms
    }
}

/// What a name may reach that is not of ASCII letters only.
fn elsewhere(relations: &HashMap<Box<[u8]>, Harm>) -> Harm {
    let mut all = Harm::default();
    for (_, harm) in relations.iter().filter(|(name, _)| !name.is_ascii()) {
        all.naming |= harm.naming;
        all.writing |= harm.writing;
    }
    all
}
