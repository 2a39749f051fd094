//! Type names: those that the grammar knows are built in, the others are looked for along the search_path.

use sqlparser::ast::{
    ArrayElemTypeDef, DataType, ExactNumberInfo, GeometricTypeKind, TimezoneInfo,
};

use super::{Walk, Walked};
use crate::route::{
    keyword::Keyword,
    parse::{Name, names},
};

/// Digits from which on FLOAT(n) is a double.
const DOUBLE_FROM: u64 = 25;

impl Walk {
    pub fn data_type(&mut self, data_type: &DataType) -> Walked {
        let name = match data_type {
            DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)) => {
                return self.data_type(element);
            }
            DataType::Custom(name, _) => {
                names::qualified(name, self.major, names::is_function_name)?
            }
            DataType::JSON => match Keyword::Json.class(self.major) {
                Some(_) => Name::built_in("json"),
                None => Name::plain("json"),
            },
            other => match of_grammar(other) {
                Some(name) => Name::built_in(name),
                None => Name::plain(plain(other)?),
            },
        };
        self.statement.types.insert(name);
        Some(())
    }
}

/// Types spelt in key words.
fn of_grammar(data_type: &DataType) -> Option<&'static str> {
    Some(match data_type {
        DataType::Character(_) | DataType::Char(_) => "bpchar",
        DataType::CharacterVarying(_) | DataType::CharVarying(_) | DataType::Varchar(_) => {
            "varchar"
        }
        DataType::Numeric(_) | DataType::Decimal(_) | DataType::Dec(_) => "numeric",
        DataType::Float(ExactNumberInfo::None) | DataType::DoublePrecision => "float8",
        DataType::Float(ExactNumberInfo::Precision(digits)) if *digits >= DOUBLE_FROM => "float8",
        DataType::Float(ExactNumberInfo::Precision(_)) | DataType::Real => "float4",
        DataType::SmallInt(None) => "int2",
        DataType::Int(None) | DataType::Integer(None) => "int4",
        DataType::BigInt(None) => "int8",
        DataType::Boolean => "bool",
        DataType::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => "time",
        DataType::Time(_, TimezoneInfo::WithTimeZone) => "timetz",
        DataType::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => "timestamp",
        DataType::Timestamp(_, TimezoneInfo::WithTimeZone) => "timestamptz",
        DataType::Interval { .. } => "interval",
        DataType::Bit(_) => "bit",
        DataType::BitVarying(_) => "varbit",
        _ => return None,
    })
}

/// Types that are plain names to PostgreSQL, though the parser has words for them.
fn plain(data_type: &DataType) -> Option<&'static str> {
    Some(match data_type {
        DataType::Uuid => "uuid",
        DataType::Text => "text",
        DataType::Bytea => "bytea",
        DataType::Int2(None) => "int2",
        DataType::Int4(None) => "int4",
        DataType::Int8(None) => "int8",
        DataType::Float4 => "float4",
        DataType::Float8 => "float8",
        DataType::Bool => "bool",
        DataType::Date => "date",
        DataType::Time(_, TimezoneInfo::Tz) => "timetz",
        DataType::Timestamp(_, TimezoneInfo::Tz) => "timestamptz",
        DataType::JSONB => "jsonb",
        DataType::Regclass => "regclass",
        DataType::VarBit(_) => "varbit",
        DataType::TsVector => "tsvector",
        DataType::TsQuery => "tsquery",
        DataType::GeometricType(kind) => match kind {
            GeometricTypeKind::Point => "point",
            GeometricTypeKind::Line => "line",
            GeometricTypeKind::LineSegment => "lseg",
            GeometricTypeKind::GeometricBox => "box",
            GeometricTypeKind::GeometricPath => "path",
            GeometricTypeKind::Polygon => "polygon",
            GeometricTypeKind::Circle => "circle",
        },
        _ => return None,
    })
}
