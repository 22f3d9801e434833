"""What `walden query` lets through: one SELECT on the schema `history`, and nothing that hides in it.

Invariant: whatever is not named here is refused. Every node of the parsed statement must be of a listed kind and carry nothing but
listed attributes; every relation is one of `history` or named in the statement's own WITH, every function, type and operator is
on a list. The parser is PostgreSQL's own (pglast). What is checked is what runs, for `bounded` puts a limit around the very bytes
that were parsed. The database role forbids most of it once more: this is here so that a person is told why, and for what every
role may do (sleep, take advisory locks, read the catalogue).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pglast import ast, parse_sql
from pglast.enums import SQLValueFunctionOp
from pglast.parser import ParseError

MOST_BYTES: Final = 100_000


def _listed(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


FUNCTIONS: Final = _listed(
    # Aggregates and windows
    "any_value array_agg avg bit_and bit_or bool_and bool_or corr count every json_agg json_object_agg jsonb_agg",
    "jsonb_object_agg max min mode percentile_cont percentile_disc regr_slope stddev stddev_pop stddev_samp string_agg sum",
    "variance cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number",
    # Text; nothing that makes much of little
    "ascii btrim char_length character_length chr concat concat_ws initcap left length like_escape lower ltrim md5",
    "normalize octet_length overlay position regexp_count regexp_instr regexp_like regexp_match regexp_matches",
    "regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr replace reverse right rtrim similar_to_escape",
    "split_part starts_with strpos substr substring to_char to_date to_number to_timestamp translate trim upper",
    # Times
    "age clock_timestamp date_bin date_part date_trunc extract isfinite justify_days justify_hours justify_interval",
    "make_date make_interval make_timestamp make_timestamptz now overlaps statement_timestamp timezone",
    "transaction_timestamp",
    # Numbers
    "abs cbrt ceil ceiling degrees div exp floor ln log log10 mod pi power random round sign sqrt trunc width_bucket",
    # JSON and arrays
    "array_length array_position array_positions array_remove array_to_json array_to_string array_upper cardinality",
    "json_array_elements json_array_elements_text json_array_length json_build_array json_build_object json_each",
    "json_each_text json_extract_path json_extract_path_text json_object_keys json_typeof jsonb_array_elements",
    "jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text",
    "jsonb_extract_path jsonb_extract_path_text jsonb_object_keys jsonb_pretty jsonb_typeof num_nonnulls num_nulls",
    "row_to_json string_to_array to_json to_jsonb unnest",
)
"""Functions of pg_catalog that a query may call. Those of `history` may all be called, by their full name."""

TYPES: Final = _listed(
    "bool boolean bpchar bytea char character date decimal double float4 float8 int int2 int4 int8 integer interval json",
    "jsonb numeric real smallint bigint text time timestamp timestamptz timetz uuid varchar",
)

OPERATORS: Final = _listed(
    "+ - * / % ^ = <> != < > <= >= || ~ !~ ~* !~* ~~ !~~ ~~* !~~* -> ->> #> #>> @> <@ ? ?| ?& && & | # << >> @? @@ ^@",
    "BETWEEN",
)

CALLED_ON_ROWS: Final = _listed(
    "any_out anycompatible_out anycompatiblenonarray_out anyelement_out anynonarray_out datemultirange hash_record",
    "int4multirange int8multirange json_agg_strict jsonb_agg_strict nummultirange pg_collation_for pg_column_compression",
    "pg_column_size pg_column_toast_chunk_id pg_get_publication_tables pg_restore_attribute_stats pg_restore_relation_stats",
    "pg_typeof quote_literal quote_nullable record_out record_send tsmultirange tstzmultirange unknownout unknownsend",
    "xmlelement xmlforest",
)
"""Functions that `row.name` calls where the row has no such column, and that are not on the list above."""

# The columns that PostgreSQL names itself, beside those named after functions and types.
_UNNAMED: Final = re.compile(
    r"^(case|coalesce|array|exists|row|greatest|least|nullif|value|key|ordinality|\?column\?|column\d+)$"
)

_MOMENTS: Final = frozenset(
    op for op in SQLValueFunctionOp if "CURRENT_DATE" in op.name or "TIME" in op.name
)  # And none of the users, roles, databases and schemas.

_CARRIED: Final[Mapping[str, str]] = {
    "SelectStmt": "distinctClause targetList fromClause whereClause groupClause groupDistinct havingClause windowClause valuesLists"
    " sortClause limitOffset limitCount limitOption withClause op all larg rarg",
    "ResTarget": "name val",
    "ColumnRef": "fields",
    "A_Star": "",
    "String": "sval",
    "Integer": "ival",
    "Float": "fval",
    "Boolean": "boolval",
    "BitString": "bsval",
    "A_Const": "isnull val",
    "A_Expr": "kind name lexpr rexpr rexpr_list_start rexpr_list_end",
    "BoolExpr": "boolop args",
    "NullTest": "arg nulltesttype argisrow",
    "BooleanTest": "arg booltesttype",
    "CaseExpr": "arg args defresult",
    "CaseWhen": "expr result",
    "CoalesceExpr": "args",
    "MinMaxExpr": "op args",
    "SubLink": "subLinkType subLinkId testexpr operName subselect",
    "FuncCall": "funcname args agg_order agg_filter over agg_within_group agg_star agg_distinct func_variadic funcformat",
    "NamedArgExpr": "name arg argnumber",
    "TypeCast": "arg typeName",
    "TypeName": "names typmods typemod arrayBounds",
    "RangeVar": "schemaname relname inh relpersistence alias",
    "JoinExpr": "jointype isNatural larg rarg usingClause join_using_alias quals alias rtindex",
    "RangeSubselect": "lateral subquery alias",
    "RangeFunction": "lateral ordinality is_rowsfrom functions alias",
    "Alias": "aliasname colnames",
    "SortBy": "node sortby_dir sortby_nulls",
    "WindowDef": "name refname partitionClause orderClause frameOptions startOffset endOffset",
    "WithClause": "ctes",
    "CommonTableExpr": "ctename aliascolnames ctematerialized ctequery cterefcount",
    "GroupingSet": "kind content",
    "GroupingFunc": "args refs agglevelsup",
    "A_ArrayExpr": "elements",
    "A_Indirection": "arg indirection",
    "A_Indices": "is_slice lidx uidx",
    "RowExpr": "args row_format",
    "SQLValueFunction": "op typmod",
}
"""What a statement may consist of: kinds of nodes with the attributes they may carry."""

_PLACES: Final = _listed("location list_start list_end rexpr_list_start rexpr_list_end stmt_location stmt_len")

_SAID: Final[Mapping[str, str]] = {
    "intoClause": "a query may not write: select into is refused",
    "lockingClause": "a query may not lock rows: for update and for share are refused",
    "recursive": "recursive queries are refused",
    "catalogname": "only this database can be read",
    "coldeflist": "functions with a list of column definitions are refused",
    "useOp": "order by using is refused",
    "setof": "sets are no type to cast to",
    "pct_type": "types of columns are no type to cast to",
}
"""In words, what attributes that are not listed would do."""


class QueryRefused(Exception):
    """The statement is not let through; the message is one sentence that says why."""


@dataclass(frozen=True, slots=True)
class Schema:
    """What there is in `history`: relations and functions, with the columns of what they give."""

    relations: Mapping[str, Collection[str]]
    functions: Mapping[str, Collection[str]]

    def columns(self) -> Iterator[str]:
        """All columns."""
        for columns in (*self.relations.values(), *self.functions.values()):
            yield from columns


def checked(text: str, schema: Schema) -> str:
    """The one statement in the text, without what stands around it. Raises QueryRefused."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise QueryRefused("the statement is not UTF-8") from None
    if size > MOST_BYTES:
        raise QueryRefused(f"the statement has more than {MOST_BYTES} bytes")
    if "\0" in text:
        raise QueryRefused("a statement cannot hold the character NUL")
    try:
        statements = parse_sql(text)
    except (ParseError, UnicodeError) as error:
        raise QueryRefused(f"that is not SQL: {error.args[0] if error.args else error}") from None
    except RecursionError:
        raise QueryRefused("the statement is nested too deeply") from None
    if len(statements) != 1:
        raise QueryRefused(f"one statement is wanted, not {len(statements)}")
    try:
        _Check(schema).statement(statements[0].stmt)
    except RecursionError:
        raise QueryRefused("the statement is nested too deeply") from None
    return _bytes_of(text, statements[0])


def bounded(text: str, schema: Schema, rows: int) -> bytes:
    """The statement in the text, checked, with a limit of rows around it: what is to be run. Raises QueryRefused."""
    inner = checked(text, schema)
    outer = "\n".join(("select * from (", inner, f") as walden_rows limit {int(rows)}"))
    # Nothing that was checked may become something else between the parentheses.
    try:
        whole = parse_sql(outer)
    except ParseError as error:
        raise QueryRefused(f"that cannot be limited to {rows} rows: {error.args[0]}") from None
    only = whole[0].stmt if len(whole) == 1 else None
    inside = (only.fromClause or ()) if isinstance(only, ast.SelectStmt) else ()
    if (
        len(inside) != 1
        or not isinstance(inside[0], ast.RangeSubselect)
        or _plain(inside[0].subquery) != _plain(parse_sql(inner)[0].stmt)
    ):
        raise QueryRefused("the statement does not end where it seems to")
    return outer.encode()


def _bytes_of(text: str, statement: Any) -> str:
    # Positions are in characters: pglast has translated the parser's bytes.
    start = statement.stmt_location or 0
    length = statement.stmt_len or 0
    return text[start : start + length] if length else text[start:].rstrip().removesuffix(";")


def _attributes(node: ast.Node) -> Iterator[str]:
    yield from type(node).__slots__  # type: ignore[attr-defined]


def _plain(node: Any) -> Any:
    """A statement as values that can be compared, without places in the text."""
    if isinstance(node, ast.Node):
        parts = ((name, _plain(getattr(node, name))) for name in _attributes(node) if name not in _PLACES)
        return (type(node).__name__, *parts)
    if isinstance(node, tuple):
        return tuple(map(_plain, node))
    return node


class _Check:
    """One walk over one statement."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.with_names: set[str] = set()
        self.column_names: set[str] = set(schema.columns())

    def statement(self, node: Any) -> None:
        if not isinstance(node, ast.SelectStmt):
            raise QueryRefused("only select is allowed")
        self._gather(node)
        self._node(node)

    def _gather(self, node: Any) -> None:
        """The names that the statement gives itself."""
        if isinstance(node, tuple):
            for one in node:
                self._gather(one)
        elif isinstance(node, ast.Node):
            if isinstance(node, ast.CommonTableExpr):
                self._with_name(node.ctename or "")
                self._column_names(part.sval for part in node.aliascolnames or ())
            elif isinstance(node, ast.Alias):
                self._column_names(part.sval for part in node.colnames or ())
                self._column_names([node.aliasname])
            elif isinstance(node, ast.ResTarget) and node.name is not None:
                self._column_names([node.name])
            for name in _attributes(node):
                self._gather(getattr(node, name))

    def _with_name(self, name: str) -> None:
        # Outside of its scope a name means what the search path says, and there is nothing but pg_… in that.
        if name.startswith(("pg_", "information_schema")):
            raise QueryRefused(f"{name} is the name of a catalogue: call it something else")
        self.with_names.add(name)

    def _column_names(self, names: Any) -> None:
        for name in names:
            if name in CALLED_ON_ROWS or name.startswith("pg_"):
                raise QueryRefused(f"{name} is the name of a function that is not on the list: call it something else")
            self.column_names.add(name)

    def _node(self, node: Any) -> None:
        if isinstance(node, tuple):
            for one in node:
                self._node(one)
            return
        if not isinstance(node, ast.Node):
            return
        kind = type(node).__name__
        carried = _CARRIED.get(kind)
        if carried is None:
            raise QueryRefused(_words(kind))
        for name in _attributes(node):
            value = getattr(node, name)
            if name in _PLACES or value is None or value is False or value == ():
                continue
            if name not in carried.split():
                raise QueryRefused(_SAID.get(name) or f"{name} of {kind} is not allowed")
        check = getattr(self, f"_check_{kind}", None)
        if check is not None:
            check(node)
        for name in _attributes(node):
            self._node(getattr(node, name))

    def _check_CommonTableExpr(self, node: Any) -> None:
        if not isinstance(node.ctequery, ast.SelectStmt):
            raise QueryRefused("only select is allowed, also in with")

    def _check_RangeVar(self, node: Any) -> None:
        if node.relpersistence not in ("p", None) or node.inh is False:
            raise QueryRefused(f"{node.relname} is to be read as it is")
        if node.schemaname is None:
            if node.relname not in self.with_names:
                there = node.relname in self.schema.relations
                hint = f": write history.{node.relname}" if there else ""
                raise QueryRefused(f"{node.relname} is not in the schema history{hint}")
        elif node.schemaname != "history":
            raise QueryRefused(f"{node.schemaname}.{node.relname} is not in the schema history")
        elif node.relname not in self.schema.relations:
            raise QueryRefused(f"there is no history.{node.relname}")

    def _check_FuncCall(self, node: Any) -> None:
        names = [part.sval for part in node.funcname]
        name = names[-1]
        if len(names) == 1 or (len(names) == 2 and names[0] == "pg_catalog"):
            if name not in FUNCTIONS:
                hint = f": write history.{name}" if name in self.schema.functions else ""
                raise QueryRefused(f"the function {name} is not on the list{hint}")
        elif names[0] != "history" or len(names) != 2 or name not in self.schema.functions:
            raise QueryRefused(f"the function {'.'.join(names)} is not on the list")

    def _check_RangeFunction(self, node: Any) -> None:
        for function, columns in node.functions:
            if columns:
                raise QueryRefused(_SAID["coldeflist"])
            if not isinstance(function, ast.FuncCall):
                raise QueryRefused("only functions of the list can be read from")

    def _check_TypeName(self, node: Any) -> None:
        names = [part.sval for part in node.names]
        if len(names) > 2 or (len(names) == 2 and names[0] != "pg_catalog") or names[-1] not in TYPES:
            raise QueryRefused(f"the type {'.'.join(names)} is not on the list")

    def _check_A_Expr(self, node: Any) -> None:
        self._operator(node.name)

    def _check_SubLink(self, node: Any) -> None:
        if node.operName:
            self._operator(node.operName)

    def _operator(self, parts: Any) -> None:
        names = [part.sval for part in parts]
        name = names[-1].removeprefix("NOT ").removesuffix(" SYMMETRIC")
        if (len(names) != 1 and names[:-1] != ["pg_catalog"]) or name not in OPERATORS:
            raise QueryRefused(f"the operator {'.'.join(names)} is not on the list")

    def _check_ColumnRef(self, node: Any) -> None:
        if len(node.fields) > 1:
            self._field(node.fields[-1])

    def _check_A_Indirection(self, node: Any) -> None:
        for part in node.indirection:
            self._field(part)

    def _field(self, part: Any) -> None:
        """`row.name` is a call of the function of that name where the row has no such column."""
        if not isinstance(part, ast.String):
            return
        name = part.sval or ""
        if name in self.column_names or name in FUNCTIONS or name in TYPES or _UNNAMED.match(name):
            return
        raise QueryRefused(f"nothing here has a column {name}")

    def _check_SQLValueFunction(self, node: Any) -> None:
        if node.op not in _MOMENTS:
            raise QueryRefused("who asks, and in which database, is not part of the history")


def _words(kind: str) -> str:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.removesuffix("Stmt").removesuffix("Expr")).lower()
    return f"{spaced} is not allowed"
