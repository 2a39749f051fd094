//! INSERT, UPDATE, DELETE and MERGE.

use sqlparser::ast::{
    Assignment, AssignmentTarget, Delete, FromTable, Insert, Merge, MergeAction, MergeInsertExpr,
    MergeInsertKind, MergeUpdateExpr, MergeUpdateKind, ObjectName, OnConflict, OnConflictAction,
    OnInsert, OutputClause, SelectItem, Statement, TableFactor, TableObject, TableWithJoins,
    Update, UpdateTableFromKind,
};

use super::{Walk, Walked, only_if};
use crate::route::parse::{Verb, names};

impl Walk {
    pub fn modification(&mut self, statement: &Statement) -> Option<Verb> {
        match statement {
            Statement::Insert(insert) => self.insert(insert).map(|()| Verb::Insert),
            Statement::Update(update) => self.update(update).map(|()| Verb::Update),
            Statement::Delete(delete) => self.delete(delete).map(|()| Verb::Delete),
            Statement::Merge(merge) => self.merge(merge).map(|()| Verb::Merge),
            _ => None,
        }
    }

    fn insert(&mut self, insert: &Insert) -> Walked {
        let Insert {
            insert_token: _,
            optimizer_hints: _,
            or: None,
            ignore: false,
            into: true,
            table: TableObject::TableName(table),
            table_alias: _,
            columns,
            overwrite: false,
            source,
            assignments,
            partitioned: None,
            after_columns,
            has_table_keyword: false,
            on,
            returning,
            output: None,
            replace_into: false,
            priority: None,
            insert_alias: None,
            settings: None,
            format_clause: None,
            multi_table_insert_type: None,
            multi_table_into_clauses: _,
            multi_table_when_clauses: _,
            multi_table_else_clause: None,
        } = insert
        else {
            return None;
        };
        only_if(assignments.is_empty() && after_columns.is_empty())?;
        self.target(table)?;
        columns.iter().try_for_each(column)?;
        if let Some(source) = source {
            only_if(matches!(self.query(source)?, Verb::Select | Verb::Values))?;
        }
        match on {
            None => {}
            Some(OnInsert::OnConflict(on)) => self.on_conflict(on)?,
            Some(_) => return None,
        }
        self.returning(returning.as_deref())
    }

    fn on_conflict(&mut self, on: &OnConflict) -> Walked {
        match &on.action {
            OnConflictAction::DoNothing => Some(()),
            OnConflictAction::DoUpdate(update) => {
                self.assignments(&update.assignments)?;
                self.each(&update.selection)
            }
        }
    }

    fn update(&mut self, update: &Update) -> Walked {
        let Update {
            update_token: _,
            optimizer_hints: _,
            table,
            assignments,
            from,
            selection,
            returning,
            output: None,
            or: None,
            order_by,
            limit: None,
        } = update
        else {
            return None;
        };
        only_if(order_by.is_empty())?;
        self.written(table)?;
        self.assignments(assignments)?;
        match from {
            None => {}
            Some(UpdateTableFromKind::AfterSet(tables)) => self.tables(tables)?,
            Some(UpdateTableFromKind::BeforeSet(_)) => return None,
        }
        self.each(selection)?;
        self.returning(returning.as_deref())
    }

    fn delete(&mut self, delete: &Delete) -> Walked {
        let Delete {
            delete_token: _,
            optimizer_hints: _,
            tables,
            from: FromTable::WithFromKeyword(from),
            using,
            selection,
            returning,
            output: None,
            order_by,
            limit: None,
        } = delete
        else {
            return None;
        };
        only_if(tables.is_empty() && order_by.is_empty())?;
        let [table] = from.as_slice() else {
            return None;
        };
        self.written(table)?;
        self.tables(using.as_deref().unwrap_or_default())?;
        self.each(selection)?;
        self.returning(returning.as_deref())
    }

    fn merge(&mut self, merge: &Merge) -> Walked {
        let Merge {
            merge_token: _,
            optimizer_hints: _,
            into: true,
            table,
            source,
            on,
            clauses,
            output,
        } = merge
        else {
            return None;
        };
        self.written_factor(table)?;
        self.factor(source)?;
        self.expr(on)?;
        for clause in clauses {
            self.each(&clause.predicate)?;
            match &clause.action {
                MergeAction::Insert(insert) => self.merge_insert(insert)?,
                MergeAction::Update(update) => self.merge_update(update)?,
                MergeAction::Delete { .. } | MergeAction::DoNothing { .. } => {}
            }
        }
        match output {
            None => Some(()),
            Some(OutputClause::Returning { select_items, .. }) => self.items(select_items),
            Some(OutputClause::Output { .. }) => None,
        }
    }

    fn merge_insert(&mut self, insert: &MergeInsertExpr) -> Walked {
        only_if(insert.insert_predicate.is_none())?;
        insert.columns.iter().try_for_each(column)?;
        match &insert.kind {
            MergeInsertKind::Values(values) => self.values(values),
            MergeInsertKind::Row | MergeInsertKind::Wildcard => None,
        }
    }

    fn merge_update(&mut self, update: &MergeUpdateExpr) -> Walked {
        only_if(update.update_predicate.is_none() && update.delete_predicate.is_none())?;
        match &update.kind {
            MergeUpdateKind::Set(assignments) => self.assignments(assignments),
            MergeUpdateKind::Wildcard => None,
        }
    }

    fn tables(&mut self, tables: &[TableWithJoins]) -> Walked {
        tables
            .iter()
            .try_for_each(|table| self.table_with_joins(table))
    }

    fn written(&mut self, table: &TableWithJoins) -> Walked {
        only_if(table.joins.is_empty())?;
        self.written_factor(&table.relation)
    }

    fn written_factor(&mut self, factor: &TableFactor) -> Walked {
        let TableFactor::Table {
            name,
            alias,
            args: None,
            with_hints,
            version: None,
            with_ordinality: false,
            partitions,
            json_path: None,
            sample: None,
            index_hints,
        } = factor
        else {
            return None;
        };
        only_if(with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty())?;
        self.alias(alias.as_ref())?;
        self.target(name)
    }

    fn assignments(&mut self, assignments: &[Assignment]) -> Walked {
        for Assignment { target, value } in assignments {
            match target {
                AssignmentTarget::ColumnName(name) => column(name)?,
                AssignmentTarget::Tuple(names) => names.iter().try_for_each(column)?,
            }
            self.expr(value)?;
        }
        Some(())
    }

    fn returning(&mut self, items: Option<&[SelectItem]>) -> Walked {
        self.items(items.unwrap_or_default())
    }
}

/// The place of a column, or of a field in it, that is set.
fn column(name: &ObjectName) -> Walked {
    names::parts(name).map(|_| ())
}
