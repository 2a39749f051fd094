//! Makes the graph of what reaches what, and reads every text once.

use std::collections::{HashMap, HashSet};

use super::{
    super::{
        Body, Catalogue, Facts, Function, Rules, Stored, TableKind, Through, body, extensions,
        graph::{Graph, Numbers},
        plpgsql::{self, Piece},
        with_name, written,
    },
    Cause, Reads, Role, Unfit,
};
use crate::route::{
    Context, Encoding,
    class::{self, Class, Place, Reason},
    effects::{self, Names},
    fingerprint::Fingerprint,
    lexer::{Lexer, Token, TokenKind},
    primary,
};

/// Operators that the grammar has words for, or that sorting, grouping and joining use.
const IMPLIED: [&[u8]; 15] = [
    b"=", b"<>", b"<", b">", b"<=", b">=", b"~~", b"!~~", b"~~*", b"!~~*", b"~", b"!~", b"~*",
    b"!~*", b"!=",
];

/// Takes time linear in what was read.
pub(in crate::route::catalogue) fn judge(
    facts: &Facts,
    catalogue: &Catalogue,
    rules: &Rules,
    major: u8,
) -> Reads {
    let mut desk = Desk::new(facts, rules);
    desk.relations(facts, rules);
    desk.functions(facts, catalogue, rules, major);
    desk.stored(facts, catalogue, major);
    desk.uses(facts);
    desk.conclude()
}

/// Nodes: functions, relations, domains, operators, and one for what is reached without being named.
struct Desk {
    functions: Numbers,
    relations: Numbers,
    domains: Numbers,
    operators: Numbers,
    edges: Vec<(u32, u32)>,
    causes: Vec<Cause>,
    marks: Vec<Option<u32>>,
    /// Names of relations of which the configuration says that they may be read anywhere.
    free: HashSet<String>,
    allowed: HashSet<Box<[u8]>>,
    statements: HashMap<Fingerprint, Place>,
}

impl Desk {
    fn new(facts: &Facts, rules: &Rules) -> Self {
        let mut desk = Desk {
            functions: Numbers::default(),
            relations: Numbers::default(),
            domains: Numbers::default(),
            operators: Numbers::default(),
            edges: Vec::new(),
            causes: Vec::new(),
            marks: Vec::new(),
            free: free(facts, rules),
            allowed: rules.built_in(Place::Anywhere).map(written).collect(),
            statements: rules.of_statements().clone(),
        };
        for function in &facts.functions {
            desk.functions.add(written(&function.name));
        }
        for function in rules.built_in(Place::Primary) {
            desk.functions.add(written(function));
        }
        for table in &facts.tables {
            desk.relations.add(written(&table.name));
        }
        for used in &facts.uses {
            match &used.by {
                Through::Operator(symbol) => desk.operators.add(written(symbol)),
                Through::Cast(domain) | Through::Argument(domain) => {
                    desk.domains.add(written(domain))
                }
                Through::Implicit => continue,
            };
        }
        for stored in &facts.stored {
            if let Stored::Check { domain, .. } = stored {
                desk.domains.add(written(domain));
            }
        }
        desk.marks = vec![None; desk.anything() as usize + 1];
        desk
    }

    fn relation(&self, number: u32) -> u32 {
        self.functions.len() as u32 + number
    }

    fn domain(&self, number: u32) -> u32 {
        self.relation(self.relations.len() as u32) + number
    }

    fn operator(&self, number: u32) -> u32 {
        self.domain(self.domains.len() as u32) + number
    }

    fn anything(&self) -> u32 {
        self.operator(self.operators.len() as u32)
    }

    fn relation_named(&self, name: &str) -> Option<u32> {
        let number = self.relations.get(&written(name))?;
        Some(self.relation(number))
    }

    fn domain_named(&self, name: &str) -> Option<u32> {
        let number = self.domains.get(&written(name))?;
        Some(self.domain(number))
    }

    fn mark(&mut self, node: Option<u32>, reason: Reason, object: &[u8]) {
        let Some(mark) = node.and_then(|node| self.marks.get_mut(node as usize)) else {
            return;
        };
        if mark.is_none() {
            *mark = Some(self.causes.len() as u32);
            self.causes.push(Cause {
                reason,
                object: object.into(),
            });
        }
    }

    fn edge(&mut self, from: Option<u32>, to: Option<u32>) {
        if let (Some(from), Some(to)) = (from, to) {
            self.edges.push((from, to));
        }
    }

    fn relations(&mut self, facts: &Facts, rules: &Rules) {
        for table in &facts.tables {
            let name = table.name.as_bytes();
            let rule = rules.of_table(&table.schema, &table.name);
            let reason = match table.kind {
                _ if rule == Some(Place::Primary) => Reason::Rule,
                _ if self.free.contains(&table.name) => continue,
                TableKind::Unlogged => Reason::Unlogged,
                TableKind::Foreign => Reason::Foreign,
                TableKind::Sequence => Reason::Sequence,
                TableKind::Replicated if table.is_built_in && primary::is_view_of_primary(name) => {
                    Reason::Relation
                }
                TableKind::Replicated => continue,
            };
            self.mark(self.relation_named(&table.name), reason, name);
        }
        let children = facts.children.iter();
        let free = self.free.clone();
        for (parent, child) in children.filter(|(parent, _)| !free.contains(parent)) {
            self.edge(self.relation_named(parent), self.relation_named(child));
        }
    }

    fn functions(&mut self, facts: &Facts, catalogue: &Catalogue, rules: &Rules, major: u8) {
        for function in rules.built_in(Place::Primary) {
            let name = written(function);
            self.mark(self.functions.get(&name), Reason::Rule, &name);
        }
        for function in &facts.functions {
            let name = written(&function.name);
            let node = self.functions.get(&name);
            match rules.of_function(&function.schema, &function.name) {
                Some(Place::Anywhere) => continue,
                Some(Place::Primary) => self.mark(node, Reason::Rule, &name),
                None => {}
            }
            if let Some(defaults) = &function.defaults {
                self.read(node, Text::Expression(defaults), catalogue, major, &name);
            }
            match text_of(function) {
                Some(Text::Nothing) => {}
                Some(text) => self.read(node, text, catalogue, major, &name),
                None => self.mark(node, Reason::Function, &name),
            }
        }
        let names: HashMap<u32, &str> = facts
            .functions
            .iter()
            .map(|function| (function.oid, &*function.name))
            .collect();
        let of = |desk: &Desk, oid: &u32| desk.functions.get(&written(names.get(oid)?));
        for (whole, part) in &facts.parts {
            let (whole, part) = (of(self, whole), part.as_ref().map(|oid| of(self, oid)));
            match part {
                Some(part) => self.edge(whole, part),
                None => self.mark(whole, Reason::Function, b""),
            }
        }
    }

    fn stored(&mut self, facts: &Facts, catalogue: &Catalogue, major: u8) {
        for stored in &facts.stored {
            let (node, name, text) = match stored {
                Stored::Query { relation, sql } => (
                    self.relation_named(relation),
                    relation,
                    Text::Statement(sql),
                ),
                Stored::Expression { relation, sql } => (
                    self.relation_named(relation),
                    relation,
                    Text::Expression(sql),
                ),
                Stored::Check { domain, sql } => {
                    (self.domain_named(domain), domain, Text::Expression(sql))
                }
            };
            let is_free = !matches!(stored, Stored::Check { .. }) && self.free.contains(name);
            if !is_free {
                self.read(node, text, catalogue, major, name.as_bytes());
            }
        }
    }

    fn uses(&mut self, facts: &Facts) {
        for used in &facts.uses {
            let name = written(&used.function);
            let function = self.functions.get(&name);
            let by = match &used.by {
                Through::Operator(symbol) => {
                    let symbol = self.operators.get(&written(symbol));
                    symbol.map(|number| self.operator(number))
                }
                Through::Cast(to) => self.domain_named(to),
                Through::Implicit => Some(self.anything()),
                Through::Argument(domain) => {
                    self.edge(function, self.domain_named(domain));
                    continue;
                }
            };
            match function {
                Some(_) => self.edge(by, function),
                None if primary::needs_primary(&name) => self.mark(by, Reason::Function, &name),
                None => {}
            }
        }
    }

    /// Reads a text that is run where `node` is named.
    fn read(
        &mut self,
        node: Option<u32>,
        text: Text,
        catalogue: &Catalogue,
        major: u8,
        name: &[u8],
    ) {
        let mut found = Found::default();
        let whole = match text {
            Text::Statement(sql) | Text::Expression(sql) | Text::PlPgSql(sql) => sql,
            Text::Nothing => return,
        };
        // Which it will be read with is the caller's setting: where it matters, both must do.
        let readings: &[bool] = match whole.contains('\\') {
            true => &[true, false],
            false => &[true],
        };
        for &standard_conforming_strings in readings {
            let context = Context {
                standard_conforming_strings,
                encoding: Encoding::AsciiSafe,
                server_major: major,
            };
            self.read_as(text, &context, catalogue, &mut found);
        }
        if let Text::PlPgSql(body) = text {
            self.variables(body, &mut found);
        }
        if let Some(class) = found.class {
            let object = class.object.as_deref().map_or(name, str::as_bytes);
            self.mark(node, class.reason, object);
        }
        for named in found.nodes {
            self.edge(node, Some(named));
        }
    }

    /// A variable's type is in no piece of a body.
    fn variables(&self, body: &str, found: &mut Found) {
        for token in Lexer::new(body.as_bytes(), true) {
            if let TokenKind::Word | TokenKind::QuotedIdent = token.kind {
                let domain = with_name(token.text(body.as_bytes()), |name| self.domains.get(name));
                found.nodes.extend(domain.map(|n| self.domain(n)));
            }
        }
    }

    fn read_as(&self, text: Text, context: &Context, catalogue: &Catalogue, found: &mut Found) {
        let names = Names::Read {
            catalogue,
            current: true,
        };
        let mut each = |piece: Piece| {
            let effects = effects::piece(piece, context, names);
            let mut note = |token: Token, sql: &[u8], role| self.note(token, sql, role, found);
            let class = class::of_piece(piece, &effects, context, &self.allowed, &mut note);
            if class.place == Place::Primary {
                found.class.get_or_insert(class);
            }
        };
        let read = match text {
            Text::Statement(sql) => {
                each(Piece::Statement(sql.as_bytes()));
                Some(())
            }
            Text::Expression(sql) => {
                each(Piece::Expression(sql.as_bytes()));
                Some(())
            }
            Text::Nothing => Some(()),
            Text::PlPgSql(sql) => plpgsql::split(
                sql.as_bytes(),
                context.standard_conforming_strings,
                &mut each,
            ),
        };
        if read.is_none() {
            found.class.get_or_insert(Class::primary(Reason::Function));
        }
    }

    /// A word, name or operator of a text.
    fn note(&self, token: Token, sql: &[u8], role: Role, found: &mut Found) {
        if token.kind == TokenKind::Op {
            let number = self.operators.get(token.text(sql));
            found.nodes.extend(number.map(|n| self.operator(n)));
            return;
        }
        with_name(token.text(sql), |name| {
            let relation = self.relations.get(name).map(|n| self.relation(n));
            let domain = self.domains.get(name).map(|n| self.domain(n));
            let function = self.functions.get(name).filter(|_| role == Role::Called);
            found.nodes.extend(relation);
            found.nodes.extend(domain);
            found.nodes.extend(function);
        });
    }

    fn conclude(mut self) -> Reads {
        let mut graph = Graph::new(self.marks.len());
        for &(from, to) in &self.edges {
            graph.edge(from, to);
        }
        for implied in IMPLIED {
            if let Some(number) = self.operators.get(implied) {
                graph.edge(self.anything(), self.operator(number));
            }
        }
        graph.spread(&mut self.marks);
        let marks = &self.marks;
        let mark = |node: u32| marks[node as usize];
        let mut unfit: HashMap<Box<[u8]>, Unfit> = HashMap::new();
        let mut note = |name: &[u8], cause: Option<u32>, put: fn(&mut Unfit, u32)| {
            if let Some(cause) = cause {
                put(unfit.entry(name.into()).or_default(), cause);
            }
        };
        for (name, number) in self.functions.iter() {
            note(name, mark(number), |unfit, cause| {
                unfit.function = Some(cause)
            });
        }
        for (name, number) in self.relations.iter() {
            note(name, mark(self.relation(number)), |unfit, cause| {
                unfit.relation = Some(cause);
            });
        }
        for (name, number) in self.domains.iter() {
            note(name, mark(self.domain(number)), |unfit, cause| {
                unfit.domain = Some(cause)
            });
        }
        let operators = self.operators.iter().filter_map(|(symbol, number)| {
            let cause = mark(self.operator(number))?;
            Some((symbol.into(), cause))
        });
        let elsewhere = unfit.iter().filter(|(name, _)| !name.is_ascii());
        let elsewhere = elsewhere
            .filter_map(|(_, unfit)| unfit.relation.or(unfit.function).or(unfit.domain))
            .next();
        Reads {
            operators: operators.collect(),
            elsewhere,
            anything: mark(self.anything()),
            unfit_relations: unfit.values().filter(|u| u.relation.is_some()).count(),
            unfit,
            relations: self.relations.into_names().map(|(name, _)| name).collect(),
            causes: self.causes,
            allowed: self.allowed,
            statements: self.statements,
        }
    }
}

/// Names of which every relation may be read anywhere by the configuration.
fn free(facts: &Facts, rules: &Rules) -> HashSet<String> {
    let mut free = HashSet::new();
    let mut bound = HashSet::new();
    for table in &facts.tables {
        match rules.of_table(&table.schema, &table.name) {
            Some(Place::Anywhere) => free.insert(table.name.clone()),
            _ => bound.insert(&table.name),
        };
    }
    free.retain(|name| !bound.contains(name));
    free
}

/// What reading a text found.
#[derive(Default)]
struct Found {
    /// Why it is no read.
    class: Option<Class>,
    /// What it names.
    nodes: Vec<u32>,
}

#[derive(Clone, Copy)]
enum Text<'t> {
    /// Its parts say all.
    Nothing,
    Statement(&'t str),
    Expression(&'t str),
    PlPgSql(&'t str),
}

/// What of a function is to be read; None: it cannot be followed.
fn text_of(function: &Function) -> Option<Text<'_>> {
    if function
        .settings
        .iter()
        .any(|setting| is_of_transaction(setting))
    {
        return None;
    }
    let text = match (&function.body, function.language.as_str()) {
        (Body::Aggregate, _) => return Some(Text::Nothing),
        (Body::Text(_), "c") => {
            return body::is_trusted(function)
                .then_some(Text::Nothing)
                .filter(|_| !extensions::needs_primary(function));
        }
        (Body::Unknown, _) => return None,
        (Body::Standard(text), _) => match body::standard(text.as_bytes())? {
            Piece::Expression(inner) => Text::Expression(std::str::from_utf8(inner).ok()?),
            Piece::Statement(inner) => Text::Statement(std::str::from_utf8(inner).ok()?),
        },
        (Body::Text(text), "sql") => Text::Statement(text),
        (Body::Text(text), "plpgsql") => Text::PlPgSql(text),
        (Body::Text(_), _) => return None,
    };
    Some(text)
}

/// A SET clause that a replica refuses, or that holds on.
fn is_of_transaction(setting: &str) -> bool {
    let name = setting.split('=').next().unwrap_or_default();
    let known = [
        "transaction_read_only",
        "default_transaction_read_only",
        "transaction_isolation",
        "default_transaction_isolation",
        "transaction_deferrable",
        "session_replication_role",
        "seed",
    ];
    known.iter().any(|known| known.eq_ignore_ascii_case(name))
}
