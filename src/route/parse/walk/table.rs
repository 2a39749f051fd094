//! What stands in FROM: tables, functions, subqueries, joins.

use sqlparser::ast::{
    Join, JoinConstraint, JoinOperator, ObjectName, TableAlias, TableFactor, TableSample,
    TableSampleKind, TableSampleMethod, TableSampleModifier, TableWithJoins,
};

use super::{Walk, Walked, only_if};
use crate::route::parse::{Name, names};

impl Walk {
    pub fn table_with_joins(&mut self, table: &TableWithJoins) -> Walked {
        let TableWithJoins { relation, joins } = table;
        self.factor(relation)?;
        joins.iter().try_for_each(|join| self.join(join))
    }

    fn join(&mut self, join: &Join) -> Walked {
        let Join {
            relation,
            global: false,
            join_operator,
        } = join
        else {
            return None;
        };
        self.factor(relation)?;
        let constraint = match join_operator {
            JoinOperator::Join(constraint)
            | JoinOperator::Inner(constraint)
            | JoinOperator::Left(constraint)
            | JoinOperator::LeftOuter(constraint)
            | JoinOperator::Right(constraint)
            | JoinOperator::RightOuter(constraint)
            | JoinOperator::FullOuter(constraint)
            | JoinOperator::CrossJoin(constraint) => constraint,
            _ => return None,
        };
        match constraint {
            JoinConstraint::On(condition) => self.expr(condition),
            JoinConstraint::Using(columns) => {
                for column in columns {
                    only_if(names::parts(column)?.len() == 1)?;
                }
                self.operator("=");
                Some(())
            }
            JoinConstraint::Natural => {
                self.operator("=");
                Some(())
            }
            JoinConstraint::None => Some(()),
        }
    }

    pub fn factor(&mut self, factor: &TableFactor) -> Walked {
        match factor {
            TableFactor::Table { .. } => self.table(factor),
            TableFactor::Derived {
                lateral: _,
                subquery,
                alias,
                sample: None,
            } => {
                self.alias(alias.as_ref())?;
                self.subquery(subquery)
            }
            TableFactor::Function {
                lateral: _,
                name,
                args,
                with_ordinality: _,
                alias,
            } => {
                self.alias(alias.as_ref())?;
                self.call(name)?;
                self.arguments(args)
            }
            TableFactor::UNNEST {
                alias,
                array_exprs,
                with_offset: false,
                with_offset_alias: None,
                with_ordinality: _,
            } => {
                self.alias(alias.as_ref())?;
                self.statement.functions.insert(Name::plain("unnest"));
                self.each(array_exprs)
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias,
            } => {
                self.alias(alias.as_ref())?;
                self.table_with_joins(table_with_joins)
            }
            _ => None,
        }
    }

    /// A table, or a function that looks like one.
    fn table(&mut self, factor: &TableFactor) -> Walked {
        let TableFactor::Table {
            name,
            alias,
            args,
            with_hints,
            version: None,
            with_ordinality,
            partitions,
            json_path: None,
            sample,
            index_hints,
        } = factor
        else {
            return None;
        };
        only_if(with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty())?;
        self.alias(alias.as_ref())?;
        let Some(args) = args else {
            only_if(!with_ordinality)?;
            if let Some(sample) = sample {
                self.sample(sample)?;
            }
            return self.relation(name);
        };
        only_if(args.settings.is_none() && sample.is_none())?;
        self.call(name)?;
        self.arguments(&args.args)
    }

    /// A table that is read, unless it is the name of a WITH query.
    fn relation(&mut self, name: &ObjectName) -> Walked {
        let name = names::qualified(name, self.major, names::is_column_name)?;
        if name.schema.is_some() || !self.visible.contains(&name.name) {
            self.statement.relations.insert(name);
        }
        Some(())
    }

    /// A table that is written to: WITH does not hide it.
    pub fn target(&mut self, name: &ObjectName) -> Walked {
        let name = names::qualified(name, self.major, names::is_column_name)?;
        self.statement.relations.insert(name);
        Some(())
    }

    fn sample(&mut self, sample: &TableSampleKind) -> Walked {
        let (TableSampleKind::BeforeTableAlias(sample) | TableSampleKind::AfterTableAlias(sample)) =
            sample;
        let TableSample {
            modifier: TableSampleModifier::TableSample,
            name: Some(method),
            quantity: Some(quantity),
            seed: _,
            bucket: None,
            offset: None,
        } = &**sample
        else {
            return None;
        };
        only_if(quantity.parenthesized && quantity.unit.is_none())?;
        let method = match method {
            TableSampleMethod::Bernoulli => "bernoulli",
            TableSampleMethod::System => "system",
            TableSampleMethod::Row | TableSampleMethod::Block => return None,
        };
        self.statement.samples.insert(Name::plain(method));
        self.expr(&quantity.value)
    }

    pub fn alias(&mut self, alias: Option<&TableAlias>) -> Walked {
        let Some(TableAlias {
            explicit: _,
            name,
            columns,
            at: None,
        }) = alias
        else {
            return only_if(alias.is_none());
        };
        only_if(matches!(name.quote_style, None | Some('"')))?;
        for column in columns {
            if let Some(data_type) = &column.data_type {
                self.data_type(data_type)?;
            }
        }
        Some(())
    }
}
