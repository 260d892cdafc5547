//! Databases, schemas, users, settings, and views that are always empty here.

use super::{BTREE_OID, CATALOG_OID, Columns, HEAP_OID, PUBLIC_OID, View, text, user_oid};
use crate::{
    error::SqlError,
    eval::Env,
    types::Type::{Bool, CharByte, Int2, Int4, Name, Oid, Text, Timestamptz},
};
use understudy_store::Value;

const PG_DATABASE: Columns = &[
    ("oid", Oid),
    ("datname", Name),
    ("datdba", Oid),
    ("encoding", Int4),
    ("datlocprovider", CharByte),
    ("datistemplate", Bool),
    ("datallowconn", Bool),
    ("datconnlimit", Int4),
    ("dattablespace", Oid),
    ("datcollate", Text),
    ("datctype", Text),
    ("daticulocale", Text),
    ("datcollversion", Text),
    ("datacl", Text),
];

const PG_ROLES: Columns = &[
    ("oid", Oid),
    ("rolname", Name),
    ("rolsuper", Bool),
    ("rolinherit", Bool),
    ("rolcreaterole", Bool),
    ("rolcreatedb", Bool),
    ("rolcanlogin", Bool),
    ("rolreplication", Bool),
    ("rolconnlimit", Int4),
    ("rolpassword", Text),
    ("rolvaliduntil", Timestamptz),
    ("rolbypassrls", Bool),
    ("rolconfig", Text),
];

fn nothing(_: &Env<'_>) -> Result<Vec<Vec<Value>>, SqlError> {
    Ok(Vec::new())
}

const fn empty(name: &'static str, columns: Columns) -> View {
    View::catalog(name, columns, nothing)
}

pub(super) static VIEWS: &[View] = &[
    View::catalog(
        "pg_namespace",
        &[("oid", Oid), ("nspname", Name), ("nspowner", Oid), ("nspacl", Text)],
        |_| {
            let schemas = [
                (CATALOG_OID, "pg_catalog"),
                (PUBLIC_OID, "public"),
                (13_000, "information_schema"),
            ];
            Ok(schemas
                .map(|(oid, name)| {
                    vec![Value::Int(oid), text(name), Value::Int(user_oid(0)), Value::Null]
                })
                .to_vec())
        },
    ),
    View::catalog("pg_database", PG_DATABASE, |env| Ok(vec![database(env)])),
    View::catalog("pg_roles", PG_ROLES, roles),
    View::catalog(
        "pg_user",
        &[
            ("usename", Name),
            ("usesysid", Oid),
            ("usecreatedb", Bool),
            ("usesuper", Bool),
            ("userepl", Bool),
            ("usebypassrls", Bool),
            ("passwd", Text),
        ],
        users,
    ),
    View::catalog(
        "pg_settings",
        &[
            ("name", Text),
            ("setting", Text),
            ("unit", Text),
            ("category", Text),
            ("short_desc", Text),
            ("context", Text),
            ("vartype", Text),
            ("source", Text),
        ],
        |env| {
            let session = env.run.context.session;
            Ok(session
                .show_all()
                .map(|(name, value, about)| {
                    vec![
                        text(name),
                        Value::text(value),
                        Value::Null,
                        Value::Null,
                        text(about),
                        text("user"),
                        text("string"),
                        text("session"),
                    ]
                })
                .collect())
        },
    ),
    View::catalog("pg_am", &[("oid", Oid), ("amname", Name), ("amtype", CharByte)], |_| {
        Ok(vec![
            vec![Value::Int(HEAP_OID), text("heap"), text("t")],
            vec![Value::Int(BTREE_OID), text("btree"), text("i")],
        ])
    }),
    View::catalog(
        "pg_collation",
        &[("oid", Oid), ("collname", Name), ("collnamespace", Oid)],
        |_| Ok(vec![vec![Value::Int(100), text("default"), Value::Int(CATALOG_OID)]]),
    ),
    View::catalog("pg_tablespace", &[("oid", Oid), ("spcname", Name)], |_| {
        Ok(vec![vec![Value::Int(1663), text("pg_default")]])
    }),
    empty(
        "pg_inherits",
        &[("inhrelid", Oid), ("inhparent", Oid), ("inhseqno", Int4), ("inhdetachpending", Bool)],
    ),
    empty(
        "pg_partitioned_table",
        &[("partrelid", Oid), ("partstrat", CharByte), ("partnatts", Int2)],
    ),
    empty(
        "pg_description",
        &[("objoid", Oid), ("classoid", Oid), ("objsubid", Int4), ("description", Text)],
    ),
    empty(
        "pg_trigger",
        &[
            ("oid", Oid),
            ("tgrelid", Oid),
            ("tgname", Name),
            ("tgisinternal", Bool),
            ("tgenabled", CharByte),
            ("tgparentid", Oid),
            ("tgconstraint", Oid),
        ],
    ),
    empty(
        "pg_policy",
        &[
            ("oid", Oid),
            ("polname", Name),
            ("polrelid", Oid),
            ("polcmd", CharByte),
            ("polpermissive", Bool),
            ("polroles", Text),
            ("polqual", Text),
            ("polwithcheck", Text),
        ],
    ),
    empty("pg_publication", &[("oid", Oid), ("pubname", Name), ("puballtables", Bool)]),
    empty(
        "pg_publication_rel",
        &[("oid", Oid), ("prpubid", Oid), ("prrelid", Oid), ("prqual", Text), ("prattrs", Text)],
    ),
    empty("pg_publication_namespace", &[("oid", Oid), ("pnpubid", Oid), ("pnnspid", Oid)]),
    empty(
        "pg_statistic_ext",
        &[
            ("oid", Oid),
            ("stxrelid", Oid),
            ("stxname", Name),
            ("stxnamespace", Oid),
            ("stxstattarget", Int4),
            ("stxkind", Text),
        ],
    ),
    empty("pg_foreign_table", &[("ftrelid", Oid), ("ftserver", Oid)]),
    empty("pg_rewrite", &[("oid", Oid), ("rulename", Name), ("ev_class", Oid)]),
    empty("pg_enum", &[("oid", Oid), ("enumtypid", Oid), ("enumlabel", Name)]),
    empty("pg_range", &[("rngtypid", Oid), ("rngsubtype", Oid)]),
    empty(
        "pg_views",
        &[("schemaname", Name), ("viewname", Name), ("viewowner", Name), ("definition", Text)],
    ),
    empty("pg_extension", &[("oid", Oid), ("extname", Name), ("extversion", Text)]),
    empty(
        "pg_auth_members",
        &[("roleid", Oid), ("member", Oid), ("grantor", Oid), ("admin_option", Bool)],
    ),
];

fn database(env: &Env<'_>) -> Vec<Value> {
    vec![
        Value::Int(5),
        text(&env.run.context.session.database),
        Value::Int(user_oid(0)),
        Value::Int(6),
        text("c"),
        Value::Bool(false),
        Value::Bool(true),
        Value::Int(-1),
        Value::Int(1663),
        text("C"),
        text("C"),
        Value::Null,
        Value::Null,
        Value::Null,
    ]
}

fn roles(env: &Env<'_>) -> Result<Vec<Vec<Value>>, SqlError> {
    let users = env.catalog().users().enumerate();
    Ok(users
        .map(|(position, user)| {
            let admin = Value::Bool(user.admin);
            vec![
                Value::Int(user_oid(position)),
                text(&user.name),
                admin.clone(),
                Value::Bool(true),
                admin.clone(),
                admin,
                Value::Bool(true),
                Value::Bool(false),
                Value::Int(-1),
                text("********"),
                Value::Null,
                Value::Bool(false),
                Value::Null,
            ]
        })
        .collect())
}

fn users(env: &Env<'_>) -> Result<Vec<Vec<Value>>, SqlError> {
    let users = env.catalog().users().enumerate();
    Ok(users
        .map(|(position, user)| {
            let admin = Value::Bool(user.admin);
            vec![
                text(&user.name),
                Value::Int(user_oid(position)),
                admin.clone(),
                admin,
                Value::Bool(false),
                Value::Bool(false),
                text("********"),
            ]
        })
        .collect())
}
