//! The same facts from PostgreSQL's own grammar: the second reader, and what the first one is held to.
//!
//! libpg_query is the server's parser as a library. Its tree is walked in its serialised form, in which every node bears
//! its name: a node that is not known here ends the walk, so that nothing passes unseen.

use pg_query::ParserOptions;
use serde_json::{Map, Value};

use super::{CopyTo, Facts, Kind, Name, Statement, Verb};

/// None as soon as something is met that is not understood.
type Walked = Option<()>;
type Node = Map<String, Value>;

/// Nodes that say nothing themselves, but may hold something that does.
const TRANSPARENT: &[&str] = &[
    "AArrayExpr",
    "AConst",
    "AIndices",
    "AStar",
    "Alias",
    "BoolExpr",
    "Boolean",
    "BooleanTest",
    "CaseWhen",
    "CoalesceExpr",
    "ColumnDef",
    "Float",
    "GroupingFunc",
    "GroupingSet",
    "IndexElem",
    "Integer",
    "List",
    "MergeWhenClause",
    "MinMaxExpr",
    "MultiAssignRef",
    "NamedArgExpr",
    "NullTest",
    "ParamRef",
    "RangeFunction",
    "RangeSubselect",
    "ResTarget",
    "RowExpr",
    "SetToDefault",
    "String",
    "TypeCast",
    "WindowDef",
];

/// Reads a text that has been found to be of bounded depth.
pub(super) fn read(text: &str) -> Option<Facts> {
    let parsed = pg_query::parse(text, ParserOptions::default()).ok()?;
    let mut facts = Facts::default();
    for statement in &parsed.protobuf.stmts {
        let node = serde_json::to_value(statement.stmt.as_ref()?).ok()?;
        facts.statements.push(self::statement(&node)?);
    }
    Some(facts)
}

fn statement(node: &Value) -> Option<Statement> {
    let (tag, body) = tagged(node)?;
    if verb_of(tag).is_some() {
        return plain(node);
    }
    let kind = match tag {
        "ExplainStmt" => return explain(body),
        "DeclareCursorStmt" => return declare(body),
        "CopyStmt" => return copy(body),
        "VariableShowStmt" => Kind::Show(body.get("name")?.as_str()?.into()),
        "VariableSetStmt" | "DiscardStmt" | "ConstraintsSetStmt" => Kind::Set,
        "TransactionStmt" => Kind::Transaction,
        "ListenStmt" | "UnlistenStmt" | "NotifyStmt" => Kind::Notify,
        "PrepareStmt" | "ExecuteStmt" | "DeallocateStmt" => Kind::Prepared,
        "FetchStmt" | "ClosePortalStmt" => Kind::Cursor,
        "CallStmt" => Kind::Call,
        "DoStmt" => Kind::Do,
        "LockStmt" => Kind::Lock,
        _ => Kind::Other,
    };
    Some(Statement::of(kind))
}

fn plain(node: &Value) -> Option<Statement> {
    let mut walk = Walk {
        statement: Statement::of(Kind::Plain(Verb::Select)),
        visible: Vec::new(),
    };
    let verb = walk.top(node)?;
    walk.statement.kind = Kind::Plain(verb);
    Some(walk.statement)
}

fn explain(body: &Node) -> Option<Statement> {
    let query = body.get("query")?;
    if verb_of(tagged(query)?.0).is_none() {
        return Some(Statement::of(Kind::ExplainOther));
    }
    let options = body.get("options")?.as_array()?;
    let is_analyze = |option: &Value| {
        let name = tagged(option).and_then(|(_, option)| option.get("defname"));
        name.and_then(Value::as_str) == Some("analyze")
    };
    let mut statement = plain(query)?;
    let Kind::Plain(of) = statement.kind else {
        return None;
    };
    statement.kind = Kind::Explain {
        analyze: options.iter().any(is_analyze),
        of,
    };
    Some(statement)
}

/// CURSOR_OPT_HOLD.
const HOLD: i64 = 0x0020;

fn declare(body: &Node) -> Option<Statement> {
    let mut statement = plain(body.get("query")?)?;
    let hold = body.get("options")?.as_i64()? & HOLD != 0;
    statement.kind = Kind::Declare { hold };
    Some(statement)
}

fn copy(body: &Node) -> Option<Statement> {
    if body.get("is_from")?.as_bool()? {
        let mut statement = Statement::of(Kind::CopyFrom);
        statement.relations.insert(relation(body.get("relation")?)?);
        return Some(statement);
    }
    let is_program = body.get("is_program")?.as_bool()?;
    let to = match (is_program, body.get("filename")?.as_str()?) {
        (true, _) => CopyTo::Program,
        (false, "") => CopyTo::Stdout,
        (false, _) => CopyTo::File,
    };
    let query = body.get("query")?;
    if query.is_null() {
        let mut statement = Statement::of(Kind::CopyTo { to, of: None });
        statement.relations.insert(relation(body.get("relation")?)?);
        return Some(statement);
    }
    let mut statement = plain(query)?;
    let Kind::Plain(of) = statement.kind else {
        return None;
    };
    statement.kind = Kind::CopyTo { to, of: Some(of) };
    Some(statement)
}

/// The verb of a statement node; a SelectStmt may be VALUES.
fn verb_of(tag: &str) -> Option<Verb> {
    Some(match tag {
        "SelectStmt" => Verb::Select,
        "InsertStmt" => Verb::Insert,
        "UpdateStmt" => Verb::Update,
        "DeleteStmt" => Verb::Delete,
        "MergeStmt" => Verb::Merge,
        _ => return None,
    })
}

/// A node's name and fields.
fn tagged(node: &Value) -> Option<(&str, &Node)> {
    let (tag, body) = node.get("node")?.as_object()?.iter().next()?;
    Some((tag, body.as_object()?))
}

/// The fields of a node, which is null where it is missing.
fn present<'n>(body: &'n Node, field: &str) -> Option<&'n Value> {
    body.get(field).filter(|value| !value.is_null())
}

fn is_filled(body: &Node, field: &str) -> bool {
    let list = body.get(field).and_then(Value::as_array);
    list.is_some_and(|list| !list.is_empty())
}

/// The words of a name; None in it for what is no word.
fn words<'n>(body: &'n Node, field: &str) -> Option<Vec<Option<&'n str>>> {
    let words = body.get(field)?.as_array()?.iter().map(|node| {
        let (tag, body) = tagged(node)?;
        (tag == "String").then(|| body.get("sval")?.as_str())?
    });
    Some(words.collect())
}

fn name(body: &Node, field: &str) -> Option<Name> {
    match words(body, field)?.as_slice() {
        [Some(name)] if name.is_ascii() => Some(Name::plain(*name)),
        [Some(schema), Some(name)] if schema.is_ascii() && name.is_ascii() => {
            Some(Name::within(*schema, *name))
        }
        _ => None,
    }
}

/// The name in a RangeVar.
fn relation(body: &Value) -> Option<Name> {
    let word = |field: &str| body.get(field).and_then(Value::as_str);
    let (schema, name) = (word("schemaname")?, word("relname")?);
    let is_local = word("catalogname")?.is_empty();
    (is_local && schema.is_ascii() && name.is_ascii()).then(|| match schema {
        "" => Name::plain(name),
        schema => Name::within(schema, name),
    })
}

struct Walk {
    statement: Statement,
    /// Names of WITH queries that can be seen here.
    visible: Vec<Box<str>>,
}

impl Walk {
    /// A statement with its own WITH.
    fn top(&mut self, node: &Value) -> Option<Verb> {
        let (tag, body) = tagged(node)?;
        let verb = verb_of(tag)?;
        match verb {
            Verb::Select => self.select(body),
            _ => self.modification(body).map(|()| verb),
        }
    }

    /// One inside another.
    fn inner(&mut self, node: &Value) -> Walked {
        let verb = self.top(node)?;
        if !matches!(verb, Verb::Select | Verb::Values) {
            self.statement.writes.insert(verb);
        }
        Some(())
    }

    fn select(&mut self, body: &Node) -> Option<Verb> {
        let outside = self.visible.len();
        self.with(body)?;
        for side in ["larg", "rarg"] {
            if let Some(side) = present(body, side) {
                self.select(side.as_object()?)?;
            }
        }
        self.statement.into |= present(body, "into_clause").is_some();
        self.statement.locks |= is_filled(body, "locking_clause");
        const ELSEWHERE: [&str; 5] = [
            "with_clause",
            "larg",
            "rarg",
            "into_clause",
            "locking_clause",
        ];
        self.fields(body, &ELSEWHERE)?;
        self.visible.truncate(outside);
        Some(match is_filled(body, "values_lists") {
            true => Verb::Values,
            false => Verb::Select,
        })
    }

    fn modification(&mut self, body: &Node) -> Walked {
        let outside = self.visible.len();
        self.with(body)?;
        let target = relation(body.get("relation")?)?;
        self.statement.relations.insert(target);
        self.fields(body, &["with_clause", "relation"])?;
        self.visible.truncate(outside);
        Some(())
    }

    /// Each sees those before it; with RECURSIVE all see all.
    fn with(&mut self, body: &Node) -> Walked {
        let Some(with) = present(body, "with_clause") else {
            return Some(());
        };
        let recursive = with.get("recursive")?.as_bool()?;
        let mut queries = Vec::new();
        for cte in with.get("ctes")?.as_array()? {
            let (_, cte) = tagged(cte)?;
            let plain =
                present(cte, "search_clause").is_none() && present(cte, "cycle_clause").is_none();
            let name = cte
                .get("ctename")?
                .as_str()
                .filter(|name| plain && name.is_ascii())?;
            queries.push((Box::<str>::from(name), cte.get("ctequery")?));
        }
        if recursive {
            self.visible
                .extend(queries.iter().map(|(name, _)| name.clone()));
        }
        for (name, query) in queries {
            self.inner(query)?;
            if !recursive {
                self.visible.push(name);
            }
        }
        Some(())
    }

    fn fields(&mut self, body: &Node, elsewhere: &[&str]) -> Walked {
        for (field, value) in body {
            match field.as_str() {
                field if elsewhere.contains(&field) => {}
                "alias" | "join_using_alias" | "xpr" => {}
                "type_name" => {
                    if let Some(type_name) = value.as_object() {
                        self.type_name(type_name)?;
                    }
                }
                "coll_clause" => {
                    if let Some(collate) = value.as_object() {
                        self.collation(collate)?;
                    }
                }
                _ => self.value(value)?,
            }
        }
        Some(())
    }

    fn value(&mut self, value: &Value) -> Walked {
        match value {
            Value::Array(values) => values.iter().try_for_each(|value| self.value(value)),
            Value::Object(body) => match body.get("node") {
                Some(Value::Null) => Some(()),
                Some(_) => {
                    let (tag, body) = tagged(value)?;
                    self.node(tag, body, value)
                }
                None => self.fields(body, &[]),
            },
            _ => Some(()),
        }
    }

    fn node(&mut self, tag: &str, body: &Node, whole: &Value) -> Walked {
        if verb_of(tag).is_some() {
            return self.inner(whole);
        }
        match tag {
            "RangeVar" => return self.table(body),
            "FuncCall" => {
                self.statement.functions.insert(name(body, "funcname")?);
                return self.fields(body, &["funcname"]);
            }
            "AExpr" => return self.operation(body),
            "SubLink" => self.sublink(body)?,
            "ColumnRef" => return self.column(body),
            "AIndirection" => {
                for word in words(body, "indirection")?.into_iter().flatten() {
                    self.attribute(word)?;
                }
            }
            "CollateClause" => return self.collation(body),
            "SqlvalueFunction" => return self.sql_value(body),
            "CaseExpr" if present(body, "arg").is_some() => self.operator("="),
            "CaseExpr" => {}
            "JoinExpr" => {
                if is_filled(body, "using_clause") || body.get("is_natural")?.as_bool()? {
                    self.operator("=");
                }
            }
            "SortBy" => {
                if is_filled(body, "use_op") {
                    let operator = name(body, "use_op")?;
                    self.statement.operators.insert(operator);
                }
            }
            "RangeTableSample" => {
                self.statement.samples.insert(name(body, "method")?);
            }
            tag => TRANSPARENT.contains(&tag).then_some(())?,
        }
        self.fields(body, &[])
    }

    fn table(&mut self, body: &Node) -> Walked {
        let name = relation(&Value::Object(body.clone()))?;
        if name.schema.is_some() || !self.visible.contains(&name.name) {
            self.statement.relations.insert(name);
        }
        Some(())
    }

    fn operator(&mut self, name: &str) {
        self.statement.operators.insert(Name::plain(name));
    }

    fn operation(&mut self, body: &Node) -> Walked {
        use pg_query::protobuf::AExprKind::{self, *};
        let kind = i32::try_from(body.get("kind")?.as_i64()?).ok()?;
        match AExprKind::try_from(kind).ok()? {
            Undefined => return None,
            AexprDistinct | AexprNotDistinct | AexprNullif => self.operator("="),
            AexprBetween | AexprBetweenSym => {
                [">=", "<="].iter().for_each(|name| self.operator(name))
            }
            AexprNotBetween | AexprNotBetweenSym => {
                ["<", ">"].iter().for_each(|name| self.operator(name))
            }
            AexprOp | AexprOpAny | AexprOpAll | AexprIn | AexprLike | AexprIlike | AexprSimilar => {
                self.statement.operators.insert(name(body, "name")?);
            }
        }
        self.fields(body, &["name"])
    }

    fn sublink(&mut self, body: &Node) -> Walked {
        if is_filled(body, "oper_name") {
            let operator = name(body, "oper_name")?;
            self.statement.operators.insert(operator);
        } else if present(body, "testexpr").is_some() {
            self.operator("=");
        }
        Some(())
    }

    /// `a.b.c` asks for `c` of the table `a.b`.
    fn column(&mut self, body: &Node) -> Walked {
        match words(body, "fields")?.as_slice() {
            [_, .., Some(last)] => self.attribute(last),
            _ => Some(()),
        }
    }

    fn attribute(&mut self, name: &str) -> Walked {
        name.is_ascii().then_some(())?;
        self.statement.attributes.insert(name.into());
        Some(())
    }

    fn collation(&mut self, body: &Node) -> Walked {
        self.statement.collations.insert(name(body, "collname")?);
        self.fields(body, &["collname"])
    }

    fn type_name(&mut self, body: &Node) -> Walked {
        let is_plain = !body.get("pct_type")?.as_bool()? && !body.get("setof")?.as_bool()?;
        is_plain.then_some(())?;
        self.statement.types.insert(name(body, "names")?);
        Some(())
    }

    fn sql_value(&mut self, body: &Node) -> Walked {
        use pg_query::protobuf::SqlValueFunctionOp::{self, *};
        let op = i32::try_from(body.get("op")?.as_i64()?).ok()?;
        let name = match SqlValueFunctionOp::try_from(op).ok()? {
            SqlvalueFunctionOpUndefined => return None,
            SvfopCurrentDate => "current_date",
            SvfopCurrentTime | SvfopCurrentTimeN => "current_time",
            SvfopCurrentTimestamp | SvfopCurrentTimestampN => "current_timestamp",
            SvfopLocaltime | SvfopLocaltimeN => "localtime",
            SvfopLocaltimestamp | SvfopLocaltimestampN => "localtimestamp",
            SvfopCurrentRole => "current_role",
            SvfopCurrentUser => "current_user",
            SvfopUser => "user",
            SvfopSessionUser => "session_user",
            SvfopCurrentCatalog => "current_catalog",
            SvfopCurrentSchema => "current_schema",
        };
        self.statement.functions.insert(Name::built_in(name));
        Some(())
    }
}
