-- taskd's database, for SQLite. Readable with any client while taskd runs.
--
-- PRAGMA user_version, at the end, numbers it: a taskd opens no database with a greater number
-- than its own. A change here raises it and brings a migration.

-- A new database has PRAGMA auto_vacuum = INCREMENTAL, so that what deleting leaves free can leave the file:
-- see taskd/persistence/sqlite/schema.py, for it must be set before all else.

PRAGMA application_id = 1952543595; -- 'task': this database is taskd's

CREATE TABLE tasks (
  id            TEXT PRIMARY KEY,           -- UUIDv7: sorts by creation
  plugin        TEXT NOT NULL,
  params_json   TEXT NOT NULL,              -- a JSON object; secret params are "***"
  secrets_json  TEXT,                       -- a JSON array: the paths of those secret params
  status        TEXT NOT NULL CHECK (status IN
                  ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'interrupted')),
  created_at    TEXT NOT NULL,              -- times: UTC, ISO 8601, microseconds, 'Z'
  started_at    TEXT,
  finished_at   TEXT,
  result_json   TEXT,
  error         TEXT,
  retry_of      TEXT,
  last_seq      INTEGER NOT NULL DEFAULT 0, -- of the stored entries
  progress_json TEXT,                       -- the newest progress, for the list of tasks
  deleted_at    TEXT                        -- hidden from then on; gone when its entries are
);

CREATE INDEX tasks_by_plugin ON tasks (plugin, id);
CREATE INDEX tasks_unended ON tasks (status, id) WHERE status IN ('queued', 'running');

CREATE TABLE task_logs (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  task_id       TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
  seq           INTEGER NOT NULL,           -- 1, 2, 3 … for each task, without holes
  timestamp     TEXT NOT NULL,
  level         TEXT NOT NULL CHECK (level IN ('DEBUG', 'INFO', 'WARNING', 'ERROR')),
  source        TEXT NOT NULL DEFAULT 'system' CHECK (length(source) <= 64),
  message       TEXT NOT NULL,
  metadata_json TEXT,                       -- a JSON object, or NULL
  UNIQUE (task_id, seq)
);

CREATE INDEX task_logs_by_timestamp ON task_logs (timestamp);

-- What is stored of each task by level and source, kept in the transaction of each batch,
-- so that counting a log by them never scans it.
CREATE TABLE log_counts (
  task_id         TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
  level           TEXT NOT NULL,
  source          TEXT NOT NULL,
  count           INTEGER NOT NULL,
  first_seq       INTEGER NOT NULL,
  last_seq        INTEGER NOT NULL,
  first_timestamp TEXT NOT NULL,            -- of first_seq and last_seq
  last_timestamp  TEXT NOT NULL,
  PRIMARY KEY (task_id, level, source)
) WITHOUT ROWID;

-- What makes a long log quick to search: made from task_logs when there is time, in small parts, by
-- taskd/persistence/sqlite/indexer.py. Without it every answer is the same, by reading more.

-- Up to where a log is in the tables below.
CREATE TABLE log_indexes (
  task_id       TEXT PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
  blocks        INTEGER NOT NULL DEFAULT 0, -- of log_blocks: 0, 1 … blocks - 1 are there
  first_row     INTEGER,                    -- the entry of a seq is row first_row + seq of log_search
  rows          INTEGER NOT NULL DEFAULT 0, -- of log_search that are kept for this log
  searchable    INTEGER NOT NULL DEFAULT 0  -- the seq up to which they are there
);

-- 8,192 entries of one log at a time, as columns. Block n has the seqs from 8192 n + 1 on.
CREATE TABLE log_blocks (
  task_id        TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
  block          INTEGER NOT NULL,
  min_timestamp  TEXT NOT NULL,
  max_timestamp  TEXT NOT NULL,
  ordered        INTEGER NOT NULL,          -- 1: no timestamp is smaller than the one before it
  folding        INTEGER NOT NULL,          -- 0: no message has what folds to ASCII and is not ASCII
  kinds_json     TEXT NOT NULL,             -- [[level, source, count, first place, last place], …]
  entry_kinds    BLOB NOT NULL,             -- of each entry a byte: its place in kinds_json; empty: too many kinds
  samples        TEXT NOT NULL,             -- the timestamp of every 128th entry from the first, a line each
  PRIMARY KEY (task_id, block)
);

-- The sequences of three characters in the case-folded messages of tasks that have ended.
CREATE VIRTUAL TABLE log_search USING fts5 (
  message, content = '', detail = none, columnsize = 0, tokenize = 'trigram case_sensitive 1'
);

PRAGMA user_version = 2;
