//! Expressions.

use sqlparser::ast::{
    AccessExpr, BinaryOperator, CastKind, CeilFloorKind, DateTimeField, Expr, Ident, Subscript,
    TrimWhereField, UnaryOperator, Value,
};

use super::{Walk, Walked, only_if};
use crate::route::parse::{Name, names};

/// What has a value without being called, by the grammar.
pub(super) const SQL_VALUES: &[&str] = &[
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "localtime",
    "localtimestamp",
    "session_user",
    "system_user",
    "user",
];

impl Walk {
    pub fn each<'e>(&mut self, exprs: impl IntoIterator<Item = &'e Expr>) -> Walked {
        exprs.into_iter().try_for_each(|expr| self.expr(expr))
    }

    fn boxed(&mut self, exprs: &[&Expr]) -> Walked {
        exprs.iter().try_for_each(|expr| self.expr(expr))
    }

    pub fn expr(&mut self, expr: &Expr) -> Walked {
        match expr {
            Expr::Value(value) => only_if(is_literal(&value.value)),
            Expr::Identifier(ident) => self.column(ident),
            Expr::CompoundIdentifier(idents) => self.columns(idents),
            Expr::Nested(inner)
            | Expr::IsFalse(inner)
            | Expr::IsNotFalse(inner)
            | Expr::IsTrue(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsNull(inner)
            | Expr::IsNotNull(inner)
            | Expr::IsUnknown(inner)
            | Expr::IsNotUnknown(inner) => self.expr(inner),
            Expr::Tuple(exprs) => self.each(exprs),
            Expr::Array(array) => self.each(&array.elem),
            Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => {
                sets.iter().try_for_each(|set| self.each(set))
            }
            Expr::Subquery(query)
            | Expr::Exists {
                subquery: query,
                negated: _,
            } => self.subquery(query),
            Expr::Function(function) => self.function(function),
            Expr::CompoundFieldAccess { root, access_chain } => {
                self.expr(root)?;
                access_chain
                    .iter()
                    .try_for_each(|access| self.access(access))
            }
            Expr::Collate { expr, collation } => {
                let name = names::qualified(collation, self.major, names::is_column_name)?;
                self.statement.collations.insert(name);
                self.expr(expr)
            }
            Expr::Wildcard(_) => Some(()),
            Expr::QualifiedWildcard(name, _) => names::parts(name).map(|_| ()),
            Expr::BinaryOp { .. }
            | Expr::UnaryOp { .. }
            | Expr::AnyOp { .. }
            | Expr::AllOp { .. } => self.operation(expr),
            Expr::Cast { .. } | Expr::TypedString(_) | Expr::Interval(_) => self.cast(expr),
            _ => self.comparison(expr).or_else(|| self.spelt(expr)),
        }
    }

    /// What compares by operators that are not written.
    fn comparison(&mut self, expr: &Expr) -> Walked {
        match expr {
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                self.operator("=");
                self.boxed(&[left, right])
            }
            Expr::InList {
                expr,
                list,
                negated,
            } => {
                self.operator(if *negated { "<>" } else { "=" });
                self.expr(expr)?;
                self.each(list)
            }
            Expr::InSubquery {
                expr,
                subquery,
                negated: _,
            } => {
                self.operator("=");
                self.expr(expr)?;
                self.subquery(subquery)
            }
            Expr::Between {
                expr,
                negated,
                low,
                high,
            } => {
                let operators = if *negated { ["<", ">"] } else { [">=", "<="] };
                operators
                    .iter()
                    .for_each(|operator| self.operator(operator));
                self.boxed(&[expr, low, high])
            }
            Expr::Case {
                case_token: _,
                end_token: _,
                operand,
                conditions,
                else_result,
            } => {
                if let Some(operand) = operand {
                    self.operator("=");
                    self.expr(operand)?;
                }
                for when in conditions {
                    self.boxed(&[&when.condition, &when.result])?;
                }
                self.each(else_result.as_deref())
            }
            _ => None,
        }
    }

    /// What has syntax of its own and is a function, or an operator in words.
    fn spelt(&mut self, expr: &Expr) -> Walked {
        match expr {
            Expr::Like { .. } | Expr::ILike { .. } | Expr::SimilarTo { .. } => self.like(expr),
            Expr::AtTimeZone {
                timestamp,
                time_zone,
            } => {
                self.built_in("timezone");
                self.boxed(&[timestamp, time_zone])
            }
            Expr::Extract { expr, .. } => {
                self.built_in("extract");
                self.expr(expr)
            }
            Expr::IsNormalized { expr, .. } => {
                self.built_in("is_normalized");
                self.expr(expr)
            }
            Expr::Position { expr, r#in } => {
                self.built_in("position");
                self.boxed(&[expr, r#in])
            }
            Expr::Ceil { expr, field } => self.rounded("ceil", expr, field),
            Expr::Floor { expr, field } => self.rounded("floor", expr, field),
            Expr::Overlay {
                expr,
                overlay_what,
                overlay_from,
                overlay_for,
            } => {
                self.built_in("overlay");
                self.boxed(&[expr, overlay_what, overlay_from])?;
                self.each(overlay_for.as_deref())
            }
            Expr::Substring { .. } | Expr::Trim { .. } => self.cut(expr),
            _ => None,
        }
    }

    /// Plain functions to PostgreSQL, though the parser has words for them.
    fn rounded(&mut self, name: &str, expr: &Expr, field: &CeilFloorKind) -> Walked {
        only_if(*field == CeilFloorKind::DateTimeField(DateTimeField::NoDateTime))?;
        self.statement.functions.insert(Name::plain(name));
        self.expr(expr)
    }

    fn like(&mut self, expr: &Expr) -> Walked {
        let (expr, pattern, escape) = match expr {
            Expr::Like {
                negated,
                any: _,
                expr,
                pattern,
                escape_char,
            } => {
                self.operator(if *negated { "!~~" } else { "~~" });
                (expr, pattern, escape_char)
            }
            Expr::ILike {
                negated,
                any: _,
                expr,
                pattern,
                escape_char,
            } => {
                self.operator(if *negated { "!~~*" } else { "~~*" });
                (expr, pattern, escape_char)
            }
            Expr::SimilarTo {
                negated,
                expr,
                pattern,
                escape_char,
            } => {
                self.operator(if *negated { "!~" } else { "~" });
                self.built_in("similar_to_escape");
                self.boxed(&[expr, pattern])?;
                return self.each(escape_char.as_deref());
            }
            _ => return None,
        };
        if escape.is_some() {
            self.built_in("like_escape");
        }
        self.boxed(&[expr, pattern])?;
        self.each(escape.as_deref())
    }

    fn cut(&mut self, expr: &Expr) -> Walked {
        match expr {
            Expr::Substring {
                expr,
                substring_from,
                substring_for,
                special,
                shorthand,
            } => {
                let name = match (special, shorthand) {
                    (_, true) => Name::plain("substr"),
                    (true, false) => Name::plain("substring"),
                    (false, false) => Name::built_in("substring"),
                };
                self.statement.functions.insert(name);
                if substring_from.is_none() && substring_for.is_some() {
                    // FOR alone is from 1 on, for so many as an integer.
                    self.statement.types.insert(Name::built_in("int4"));
                }
                self.expr(expr)?;
                self.each(substring_from.as_deref())?;
                self.each(substring_for.as_deref())
            }
            Expr::Trim {
                trim_where,
                trim_what,
                expr,
                trim_characters,
            } => {
                self.built_in(match trim_where {
                    None | Some(TrimWhereField::Both) => "btrim",
                    Some(TrimWhereField::Leading) => "ltrim",
                    Some(TrimWhereField::Trailing) => "rtrim",
                });
                self.expr(expr)?;
                self.each(trim_what.as_deref())?;
                self.each(trim_characters.iter().flatten())
            }
            _ => None,
        }
    }

    fn cast(&mut self, expr: &Expr) -> Walked {
        match expr {
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon,
                expr,
                data_type,
                format: None,
            } => {
                self.data_type(data_type)?;
                self.expr(expr)
            }
            Expr::TypedString(typed) => {
                only_if(!typed.uses_odbc_syntax)?;
                self.data_type(&typed.data_type)
            }
            Expr::Interval(interval) => {
                let is_literal = |expr: &Expr| match expr {
                    Expr::Value(value) => is_string(&value.value),
                    _ => false,
                };
                only_if(is_literal(&interval.value))?;
                self.statement.types.insert(Name::built_in("interval"));
                Some(())
            }
            _ => None,
        }
    }

    fn operation(&mut self, expr: &Expr) -> Walked {
        match expr {
            Expr::BinaryOp { left, op, right } => {
                self.binary(op)?;
                self.boxed(&[left, right])
            }
            Expr::AnyOp {
                left,
                compare_op,
                right,
                is_some: _,
            }
            | Expr::AllOp {
                left,
                compare_op,
                right,
            } => {
                self.binary(compare_op)?;
                self.boxed(&[left, right])
            }
            Expr::UnaryOp { op, expr } => {
                match op {
                    UnaryOperator::Not => {}
                    UnaryOperator::BangNot | UnaryOperator::PGPostfixFactorial => return None,
                    // It belongs to the number.
                    UnaryOperator::Minus if is_number(expr) => {}
                    op => self.written_operator(&op.to_string())?,
                }
                self.expr(expr)
            }
            _ => None,
        }
    }

    fn binary(&mut self, operator: &BinaryOperator) -> Walked {
        match operator {
            BinaryOperator::And | BinaryOperator::Or => Some(()),
            BinaryOperator::Overlaps => {
                self.built_in("overlaps");
                Some(())
            }
            BinaryOperator::PGCustomBinaryOperator(parts) => self.explicit_operator(parts),
            operator => self.written_operator(&operator.to_string()),
        }
    }

    /// `OPERATOR(schema.+)`. How the schema was quoted is not known any more.
    fn explicit_operator(&mut self, parts: &[String]) -> Walked {
        let is_plain = |schema: &str| {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            schema.bytes().all(plain)
        };
        match parts {
            [name] => self.written_operator(name),
            [schema, name] if is_plain(schema) && is_operator(name) => {
                let name = Name::within(schema.as_str(), name.as_str());
                self.statement.operators.insert(name);
                Some(())
            }
            _ => None,
        }
    }

    /// One of USING.
    pub fn operator_name(&mut self, parts: &[&Ident]) -> Walked {
        let parts: Vec<_> = parts.iter().map(|part| part.value.clone()).collect();
        self.explicit_operator(&parts)
    }

    /// Made of an operator's characters, and so not a word of another dialect.
    fn written_operator(&mut self, name: &str) -> Walked {
        only_if(is_operator(name))?;
        self.operator(if name == "!=" { "<>" } else { name });
        Some(())
    }

    /// A column without a table, or a word that the grammar gives a value.
    fn column(&mut self, ident: &Ident) -> Walked {
        if names::is_column_name(ident, self.major) {
            return only_if(matches!(ident.quote_style, None | Some('"')));
        }
        let word = names::folded(ident)?;
        match SQL_VALUES.contains(&&*word) {
            true => self.built_in(&word),
            false => only_if(&*word == "default")?,
        }
        Some(())
    }

    fn columns(&mut self, idents: &[Ident]) -> Walked {
        let [first, .., last] = idents else {
            return None;
        };
        only_if(names::is_column_name(first, self.major))?;
        self.attribute(last)
    }

    fn attribute(&mut self, ident: &Ident) -> Walked {
        only_if(matches!(ident.quote_style, None | Some('"')))?;
        self.statement.attributes.insert(names::folded(ident)?);
        Some(())
    }

    fn access(&mut self, access: &AccessExpr) -> Walked {
        match access {
            AccessExpr::Dot(Expr::Identifier(field)) => self.attribute(field),
            AccessExpr::Dot(_) => None,
            AccessExpr::Subscript(Subscript::Index { index }) => self.expr(index),
            AccessExpr::Subscript(Subscript::Slice {
                lower_bound,
                upper_bound,
                stride: None,
            }) => {
                self.each(lower_bound)?;
                self.each(upper_bound)
            }
            AccessExpr::Subscript(_) => None,
        }
    }
}

fn is_operator(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b"+-*/<>=~!@#%^&|`?".contains(&b))
}

fn is_number(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_number(inner),
        Expr::Value(value) => matches!(value.value, Value::Number(..)),
        _ => false,
    }
}

fn is_string(value: &Value) -> bool {
    matches!(
        value,
        Value::SingleQuotedString(_) | Value::DollarQuotedString(_)
    )
}

fn is_literal(value: &Value) -> bool {
    is_string(value)
        || matches!(
            value,
            Value::Number(..) | Value::Boolean(_) | Value::Null | Value::Placeholder(_)
        )
}
