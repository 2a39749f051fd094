//! Queries: WITH and what it makes visible, SELECT and its clauses, set operations, VALUES.

use sqlparser::ast::{
    Distinct, Expr, Fetch, GroupByExpr, LimitClause, NamedWindowExpr, ObjectName, OrderBy,
    OrderByExpr, OrderByKind, OrderBySort, Query, Select, SelectFlavor, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, SetOperator, SetQuantifier, Values,
    WildcardAdditionalOptions, WindowFrameBound, WindowSpec, With,
};

use super::{Walk, Walked, only_if};
use crate::route::parse::{Verb, names};

impl Walk {
    /// A query in an expression or in FROM, whose verb is noted if it writes.
    pub fn subquery(&mut self, query: &Query) -> Walked {
        let verb = self.query(query)?;
        if !matches!(verb, Verb::Select | Verb::Values) {
            self.statement.writes.insert(verb);
        }
        Some(())
    }

    pub fn query(&mut self, query: &Query) -> Option<Verb> {
        let Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause: None,
            settings: None,
            format_clause: None,
            pipe_operators,
        } = query
        else {
            return None;
        };
        only_if(pipe_operators.is_empty())?;
        let outside = self.visible.len();
        if let Some(with) = with {
            self.with(with)?;
        }
        let verb = self.body(body)?;
        if let Some(order_by) = order_by {
            self.order_by(order_by)?;
        }
        if let Some(limit) = limit_clause {
            self.limit(limit)?;
        }
        if let Some(Fetch {
            with_ties: _,
            percent,
            quantity,
        }) = fetch
        {
            only_if(!percent)?;
            self.each(quantity)?;
        }
        self.statement.locks |= !locks.is_empty();
        self.visible.truncate(outside);
        Some(verb)
    }

    /// Each sees those before it; with RECURSIVE all see all.
    fn with(&mut self, with: &With) -> Walked {
        let With {
            with_token: _,
            recursive,
            cte_tables,
        } = with;
        let mut names = Vec::with_capacity(cte_tables.len());
        for cte in cte_tables {
            only_if(cte.from.is_none())?;
            names.push(names::folded(&cte.alias.name)?);
        }
        if *recursive {
            self.visible.extend(names.iter().cloned());
        }
        for (cte, name) in cte_tables.iter().zip(names) {
            self.alias(Some(&cte.alias))?;
            self.subquery(&cte.query)?;
            if !*recursive {
                self.visible.push(name);
            }
        }
        Some(())
    }

    fn body(&mut self, body: &SetExpr) -> Option<Verb> {
        match body {
            SetExpr::Select(select) => self.select(select).map(|()| Verb::Select),
            SetExpr::Query(query) => self.query(query),
            SetExpr::SetOperation {
                left,
                op,
                set_quantifier,
                right,
            } => {
                only_if(*op != SetOperator::Minus)?;
                only_if(matches!(
                    set_quantifier,
                    SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None
                ))?;
                for side in [left, right] {
                    only_if(matches!(self.body(side)?, Verb::Select | Verb::Values))?;
                }
                Some(Verb::Select)
            }
            SetExpr::Values(values) => self.values(values).map(|()| Verb::Values),
            SetExpr::Insert(statement)
            | SetExpr::Update(statement)
            | SetExpr::Delete(statement)
            | SetExpr::Merge(statement) => self.modification(statement),
            SetExpr::Table(_) => None,
        }
    }

    pub fn values(&mut self, values: &Values) -> Walked {
        let Values {
            explicit_row: false,
            value_keyword: false,
            rows,
        } = values
        else {
            return None;
        };
        rows.iter().try_for_each(|row| self.each(&row.content))
    }

    fn select(&mut self, select: &Select) -> Walked {
        let Select {
            select_token: _,
            optimizer_hints: _,
            distinct,
            select_modifiers: None,
            top: None,
            top_before_distinct: _,
            projection,
            exclude: None,
            into,
            from,
            lateral_views,
            prewhere: None,
            selection,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having,
            named_window,
            qualify: None,
            window_before_qualify: _,
            value_table_mode: None,
            flavor: SelectFlavor::Standard,
        } = select
        else {
            return None;
        };
        only_if(lateral_views.is_empty() && connect_by.is_empty())?;
        only_if(cluster_by.is_empty() && distribute_by.is_empty() && sort_by.is_empty())?;
        if let Some(Distinct::On(keys)) = distinct {
            self.each(keys)?;
        }
        self.statement.into |= into.is_some();
        self.items(projection)?;
        for table in from {
            self.table_with_joins(table)?;
        }
        self.each(selection)?;
        self.group_by(group_by)?;
        self.each(having)?;
        for window in named_window {
            match &window.1 {
                NamedWindowExpr::WindowSpec(spec) => self.window(spec)?,
                NamedWindowExpr::NamedWindow(_) => return None,
            }
        }
        Some(())
    }

    /// What SELECT and RETURNING give.
    pub fn items(&mut self, items: &[SelectItem]) -> Walked {
        for item in items {
            match item {
                SelectItem::UnnamedExpr(expr) => self.expr(expr)?,
                SelectItem::ExprWithAlias { expr, alias } => {
                    only_if(matches!(alias.quote_style, None | Some('"')))?;
                    self.expr(expr)?;
                }
                SelectItem::QualifiedWildcard(kind, options) => {
                    only_if(is_plain_wildcard(options))?;
                    match kind {
                        SelectItemQualifiedWildcardKind::ObjectName(name) => {
                            names::parts(name)?;
                        }
                        SelectItemQualifiedWildcardKind::Expr(expr) => self.expr(expr)?,
                    }
                }
                SelectItem::Wildcard(options) => only_if(is_plain_wildcard(options))?,
                SelectItem::ExprWithAliases { .. } => return None,
            }
        }
        Some(())
    }

    fn group_by(&mut self, group_by: &GroupByExpr) -> Walked {
        match group_by {
            GroupByExpr::Expressions(keys, modifiers) if modifiers.is_empty() => {
                keys.iter().try_for_each(|key| self.group_key(key))
            }
            _ => None,
        }
    }

    /// Inside GROUPING SETS the parser takes ROLLUP and CUBE for functions.
    fn group_key(&mut self, key: &Expr) -> Walked {
        match key {
            Expr::GroupingSets(sets) => {
                let mut keys = sets.iter().flatten();
                keys.try_for_each(|key| match key {
                    Expr::Function(function) if is_grouping(&function.name) => None,
                    key => self.expr(key),
                })
            }
            key => self.expr(key),
        }
    }

    fn order_by(&mut self, order_by: &OrderBy) -> Walked {
        match order_by {
            OrderBy {
                kind: OrderByKind::Expressions(keys),
                interpolate: None,
            } => self.sort_keys(keys),
            _ => None,
        }
    }

    pub fn sort_keys(&mut self, keys: &[OrderByExpr]) -> Walked {
        for key in keys {
            only_if(key.with_fill.is_none())?;
            self.expr(&key.expr)?;
            if let Some(OrderBySort::Using(name)) = &key.options.sort {
                self.operator_name(&names::parts(name)?)?;
            }
        }
        Some(())
    }

    fn limit(&mut self, limit: &LimitClause) -> Walked {
        match limit {
            LimitClause::LimitOffset {
                limit,
                offset,
                limit_by,
            } if limit_by.is_empty() => {
                self.each(limit)?;
                self.each(offset.as_ref().map(|offset| &offset.value))
            }
            _ => None,
        }
    }

    pub fn window(&mut self, window: &WindowSpec) -> Walked {
        let WindowSpec {
            window_name: _,
            partition_by,
            order_by,
            window_frame,
        } = window;
        self.each(partition_by)?;
        self.sort_keys(order_by)?;
        let Some(frame) = window_frame else {
            return Some(());
        };
        let bounds = [Some(&frame.start_bound), frame.end_bound.as_ref()];
        for bound in bounds.into_iter().flatten() {
            match bound {
                WindowFrameBound::CurrentRow => {}
                WindowFrameBound::Preceding(offset) | WindowFrameBound::Following(offset) => {
                    self.each(offset.as_deref())?;
                }
            }
        }
        Some(())
    }
}

fn is_grouping(name: &ObjectName) -> bool {
    let name = name.to_string();
    name.eq_ignore_ascii_case("rollup") || name.eq_ignore_ascii_case("cube")
}

/// Without what other dialects put behind a `*`.
pub(super) fn is_plain_wildcard(options: &WildcardAdditionalOptions) -> bool {
    matches!(
        options,
        WildcardAdditionalOptions {
            wildcard_token: _,
            opt_ilike: None,
            opt_exclude: None,
            opt_except: None,
            opt_replace: None,
            opt_rename: None,
            opt_alias: None,
        }
    )
}
