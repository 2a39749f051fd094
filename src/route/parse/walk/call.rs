//! Calls: functions by their names, what the grammar makes of some of them, their arguments.

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgOperator, FunctionArgumentClause,
    FunctionArgumentList, FunctionArguments, ObjectName, WindowType,
};

use super::{Walk, Walked, expr::SQL_VALUES, only_if};
use crate::route::{
    keyword::{Class, Keyword},
    parse::{Name, names},
};

impl Walk {
    pub fn function(&mut self, function: &Function) -> Walked {
        let Function {
            name,
            uses_odbc_syntax: false,
            parameters: FunctionArguments::None,
            args,
            within_group,
            filter,
            null_treatment: None,
            over,
        } = function
        else {
            return None;
        };
        // `ARRAY(SELECT …)` is none.
        let is_array = matches!(names::parts(name)?.as_slice(), [word]
            if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("array"));
        if !is_array || !matches!(args, FunctionArguments::Subquery(_)) {
            self.call(name)?;
        }
        match args {
            FunctionArguments::None => {}
            FunctionArguments::Subquery(query) => self.subquery(query)?,
            FunctionArguments::List(list) => self.argument_list(list)?,
        }
        self.sort_keys(within_group)?;
        self.each(filter.as_deref())?;
        match over {
            Some(WindowType::WindowSpec(window)) => self.window(window),
            Some(WindowType::NamedWindow(_)) | None => Some(()),
        }
    }

    fn argument_list(&mut self, list: &FunctionArgumentList) -> Walked {
        for clause in &list.clauses {
            match clause {
                FunctionArgumentClause::OrderBy(keys) => self.sort_keys(keys)?,
                _ => return None,
            }
        }
        self.arguments(&list.args)
    }

    pub fn arguments(&mut self, args: &[FunctionArg]) -> Walked {
        for arg in args {
            let arg = match arg {
                FunctionArg::Named { arg, operator, .. } if is_naming(operator) => arg,
                FunctionArg::ExprNamed {
                    name: Expr::Identifier(_),
                    arg,
                    operator,
                } if is_naming(operator) => arg,
                FunctionArg::Unnamed(arg) => arg,
                _ => return None,
            };
            match arg {
                FunctionArgExpr::Expr(expr) => self.expr(expr)?,
                FunctionArgExpr::Wildcard => {}
                FunctionArgExpr::QualifiedWildcard(name) => {
                    names::parts(name)?;
                }
                FunctionArgExpr::WildcardWithOptions(options) => {
                    only_if(super::query::is_plain_wildcard(options))?;
                }
            }
        }
        Some(())
    }

    /// A function by its name, or what the grammar makes of one.
    pub fn call(&mut self, name: &ObjectName) -> Walked {
        let class = match names::parts(name)?.as_slice() {
            [word] => {
                names::class(word, self.major).map(|class| (word.value.to_ascii_lowercase(), class))
            }
            _ => None,
        };
        let Some((word, class)) = class else {
            let name = names::qualified(name, self.major, names::is_function_name)?;
            self.statement.functions.insert(name);
            return Some(());
        };
        match (word.as_str(), class) {
            ("coalesce" | "greatest" | "least" | "grouping" | "row", _) => {}
            ("nullif", _) => self.operator("="),
            ("normalize", _) => self.built_in("normalize"),
            ("substring" | "overlay", _) => {
                self.statement.functions.insert(Name::plain(word));
            }
            // With a precision; `current_schema()` is a function.
            (word, Class::Reserved) if SQL_VALUES.contains(&word) => self.built_in(word),
            (_, Class::Unreserved | Class::TypeFunc) => {
                only_if(Keyword::of(word.as_bytes()) != Some(Keyword::Collation))?;
                self.statement.functions.insert(Name::plain(word));
            }
            (_, Class::Reserved | Class::ColName) => return None,
        }
        Some(())
    }
}

/// `f(a => 1)`, `f(a := 1)`.
fn is_naming(operator: &FunctionArgOperator) -> bool {
    matches!(
        operator,
        FunctionArgOperator::RightArrow | FunctionArgOperator::Assignment
    )
}
