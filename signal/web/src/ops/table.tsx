import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

export interface Column<Row> {
  readonly name: string;
  readonly title?: string;
  readonly numeric?: boolean;
  cell(row: Row): ComponentChildren;
  /** What the column sorts by; without it, it cannot be sorted by. */
  order?(row: Row): number | string;
}

const rowHeight = 34;
// Beneath this many rows all are drawn; above it, those on the screen and some around them.
const drawAll = 60;
const around = 12;

/** A table that stays quick with thousands of rows: only what is on the screen is drawn. */
export function Table<Row>({
  columns,
  rows,
  keyOf,
  testid,
  empty,
}: {
  columns: readonly Column<Row>[];
  rows: readonly Row[];
  keyOf: (row: Row) => string;
  testid: string;
  empty: string;
}) {
  const [sort, setSort] = useState<{ column: number; down: boolean }>();
  const box = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, height: 600 });
  useEffect(() => {
    const observer = new ResizeObserver(() => setView((v) => ({ ...v, height: box.current?.clientHeight ?? 600 })));
    if (box.current) observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  if (rows.length === 0) return <p class="none">{empty}</p>;

  const ordered = sorted(rows, sort && columns[sort.column]?.order, sort?.down ?? false);
  const first = rows.length <= drawAll ? 0 : Math.max(0, Math.floor(view.top / rowHeight) - around);
  const shown = rows.length <= drawAll ? rows.length : Math.ceil(view.height / rowHeight) + 2 * around;
  const drawn = ordered.slice(first, first + shown);
  return (
    <div class="table-box" ref={box} onScroll={(e) => setView({ ...view, top: e.currentTarget.scrollTop })}>
      <table data-testid={testid} data-rows={rows.length} aria-rowcount={rows.length}>
        <thead>
          <tr>
            {columns.map((column, i) => (
              <th
                key={column.name}
                class={column.numeric ? "numeric" : ""}
                title={column.title}
                aria-sort={sort?.column === i ? (sort.down ? "descending" : "ascending") : undefined}
              >
                {column.order ? (
                  <button type="button" onClick={() => setSort({ column: i, down: sort?.column === i ? !sort.down : !!column.numeric })}>
                    {column.name}
                    {sort?.column === i ? (sort.down ? " ↓" : " ↑") : ""}
                  </button>
                ) : (
                  column.name
                )}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {first > 0 && <tr style={{ height: first * rowHeight }} aria-hidden="true" />}
          {drawn.map((row) => (
            <tr key={keyOf(row)}>
              {columns.map((column) => (
                <td key={column.name} class={column.numeric ? "numeric" : ""}>
                  {column.cell(row)}
                </td>
              ))}
            </tr>
          ))}
          {first + shown < rows.length && (
            <tr style={{ height: (rows.length - first - shown) * rowHeight }} aria-hidden="true" />
          )}
        </tbody>
      </table>
    </div>
  );
}

function sorted<Row>(
  rows: readonly Row[],
  order: ((row: Row) => number | string) | undefined,
  down: boolean,
): readonly Row[] {
  if (!order) return rows;
  const sign = down ? -1 : 1;
  return [...rows].sort((a, b) => {
    const x = order(a);
    const y = order(b);
    if (typeof x === "number" && typeof y === "number") return sign * (x - y);
    return sign * String(x).localeCompare(String(y));
  });
}
