package postgres_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"plane/adapters/postgres/pgtest"
)

var update = flag.Bool("update", false, "write docs/schema.md anew")

const schemaFile = "../../docs/schema.md"

// item is something in the schema that has to have a comment.
type item struct{ Owner, Name, Kind, Comment string }

// TestTheSchemaIsDocumented holds docs/schema.md to the comments in the
// database, and wants one on everything.
func TestTheSchemaIsDocumented(t *testing.T) {
	conn, err := pgx.Connect(t.Context(), pgtest.Database(t))
	require.NoError(t, err)
	defer conn.Close(t.Context())
	list := func(sql string) []item {
		rows, err := conn.Query(t.Context(), sql)
		require.NoError(t, err)
		items, err := pgx.CollectRows(rows, pgx.RowToStructByPos[item])
		require.NoError(t, err)
		for _, i := range items {
			require.NotEmpty(t, i.Comment, "comment on %s %s", i.Owner, i.Name)
		}
		return items
	}
	relations := list(`
		select '', c.relname, case c.relkind when 'r' then 'table' when 'v' then 'view' when 'c' then 'type' else 'sequence' end,
			coalesce(case c.relkind when 'c' then obj_description(c.reltype, 'pg_type') else obj_description(c.oid, 'pg_class') end, '')
		from pg_class c
		where c.relnamespace = 'plane'::regnamespace and (c.relkind in ('r', 'v', 'c')
			or c.relkind = 'S' and not exists (select from pg_depend d where d.objid = c.oid and d.deptype in ('a', 'i')))
		order by c.relkind <> 'r', c.relname`)
	columns := list(`
		select c.relname, a.attname, format_type(a.atttypid, a.atttypmod) || case when a.attnotnull or c.relkind = 'c' then '' else ', may be null' end,
			coalesce(col_description(c.oid, a.attnum), '')
		from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
		where c.relnamespace = 'plane'::regnamespace and c.relkind in ('r', 'v', 'c')
		order by c.relname, a.attnum`)
	indexes := list(`
		select t.relname, c.relname, '', obj_description(c.oid, 'pg_class')
		from pg_class c join pg_index i on i.indexrelid = c.oid join pg_class t on t.oid = i.indrelid
		where c.relnamespace = 'plane'::regnamespace and obj_description(c.oid, 'pg_class') is not null
		order by t.relname, c.relname`)
	functions := list(`
		select '', p.proname, pg_get_function_identity_arguments(p.oid), coalesce(obj_description(p.oid, 'pg_proc'), '')
		from pg_proc p where p.pronamespace = 'plane'::regnamespace order by p.proname, 3`)

	got := document(relations, columns, indexes, functions)
	if *update {
		require.NoError(t, os.WriteFile(schemaFile, []byte(got), 0o644))
	}
	want, err := os.ReadFile(schemaFile)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "docs/schema.md is not what the migrations say: make schema")
}

// document is the text of docs/schema.md.
func document(relations, columns, indexes, functions []item) string {
	var b strings.Builder
	b.WriteString("# The database\n\n" +
		"Made from the comments in the database by `make schema`; `\\d+ plane.TABLE` in psql shows the same. The tables are\n" +
		"Plane's own: nothing here but the meaning of `plane db` and of the HTTP API is kept stable between versions.\n")
	for _, r := range relations {
		fmt.Fprintf(&b, "\n## %s %s\n\n%s\n", r.Kind, r.Name, cell(r.Comment))
		head := "\n| column | type | |\n|---|---|---|\n"
		for _, c := range columns {
			if c.Owner == r.Name {
				fmt.Fprintf(&b, "%s| `%s` | %s | %s |\n", head, c.Name, c.Kind, cell(c.Comment))
				head = ""
			}
		}
		head = "\n"
		for _, i := range indexes {
			if i.Owner == r.Name {
				fmt.Fprintf(&b, "%s- index `%s`: %s\n", head, i.Name, cell(i.Comment))
				head = ""
			}
		}
	}
	b.WriteString("\n## Functions\n\n| function | |\n|---|---|\n")
	for _, f := range functions {
		fmt.Fprintf(&b, "| `%s` | %s |\n", f.Name, cell(f.Comment))
	}
	return b.String()
}

// cell is text that fits in a cell of a table.
func cell(text string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", "\\|")
}
