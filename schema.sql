-- taskd's database, for SQLite. Readable with any client while taskd runs.
--
-- PRAGMA user_version, at the end, numbers it: a taskd opens no database with a greater number
-- than its own. A change here raises it and brings a migration.

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

PRAGMA user_version = 1;
