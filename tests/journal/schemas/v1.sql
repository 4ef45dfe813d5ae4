-- The journal as version 1 wrote it. Frozen.
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE streams (
    number INTEGER PRIMARY KEY,
    work_order_id TEXT NOT NULL UNIQUE,
    events INTEGER NOT NULL DEFAULT 0,
    last_at INTEGER NOT NULL DEFAULT 0,
    trimmed INTEGER NOT NULL DEFAULT 0,
    trimmed_at INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    type TEXT NOT NULL,
    at INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX events_by_stream ON events (stream);
CREATE TABLE work_orders (
    position INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL UNIQUE,
    status TEXT NOT NULL,
    document BLOB NOT NULL
);
CREATE INDEX work_orders_by_status ON work_orders (status);
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    stream INTEGER NOT NULL,
    run_number INTEGER NOT NULL,
    status TEXT NOT NULL,
    document BLOB NOT NULL
);
CREATE INDEX runs_by_stream ON runs (stream, run_number);
CREATE INDEX runs_running ON runs (status) WHERE status = 'running';
PRAGMA application_id = 1634169716;
PRAGMA user_version = 1;
INSERT INTO meta VALUES ('epoch', 'f00d'), ('reserved', 3), ('floor', 0), ('floor_at', 0), ('trimmed', 1),
    ('trimmed_at', 1769860800000);
INSERT INTO streams VALUES (1, 'w1', 2, 1769860802000, 1, 1769860800000);
INSERT INTO events VALUES
    (2, 1, 'agent_output', 1769860801000, CAST('{"type":"agent_output","workOrderId":"w1","timestamp":"2026-01-31T12:00:01.000Z","runId":"r1","content":"two"}' AS BLOB)),
    (3, 1, 'agent_error', 1769860802000, CAST('{"type":"agent_error","workOrderId":"w1","timestamp":"2026-01-31T12:00:02.000Z","runId":"r1","message":"three","code":"X","source":"agent"}' AS BLOB));
INSERT INTO work_orders VALUES (1, 1, 'succeeded', CAST('{"id":"w1","request":{"taskPrompt":"do it","workspaceSource":{"type":"fresh"},"agentType":"claude-code","maxAttempts":1,"interactive":false,"includeDeltas":false,"streaming":{"emitToolCalls":true,"emitToolResults":true,"emitOutput":true,"progressIntervalMs":5000}},"workspace":"/w","status":"succeeded","createdAt":"2026-01-31T12:00:00.000Z","updatedAt":"2026-01-31T12:00:02.000Z","runCount":1}' AS BLOB));
INSERT INTO runs VALUES ('r1', 1, 1, 'succeeded', CAST('{"id":"r1","workOrderId":"w1","runNumber":1,"agentType":"demo","status":"succeeded","startedAt":"2026-01-31T12:00:00.000Z","prompt":"do it","malformedLines":0,"directory":"runs/r1"}' AS BLOB));
