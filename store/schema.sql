-- Rockpool's cache. To read it:  sqlite3 -readonly rockpool.db 'SELECT * FROM v_collection'
-- (-readonly matters: sqlite3 shells up to 3.51.2 can damage a database that is in use.)

-- Facts about this file itself.
CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT;

-- One recorded LIST/WATCH scope. state:
--   complete  every object of the scope as it was at resource_version
--   filling   being recorded; never read. Without a kind, no client is told of it
--   seen      singles: objects that were read, written or told alone; proves nothing about others
CREATE TABLE collection (
  id               INTEGER PRIMARY KEY,
  principal        TEXT NOT NULL,
  api_group        TEXT NOT NULL,
  version          TEXT NOT NULL,
  resource         TEXT NOT NULL,
  representation   TEXT NOT NULL,
  namespace        TEXT NOT NULL,
  label_selector   TEXT NOT NULL,
  field_selector   TEXT NOT NULL,
  media_type       TEXT NOT NULL,
  state            TEXT NOT NULL CHECK (state IN ('complete', 'filling', 'seen')),
  kind             TEXT NOT NULL DEFAULT '',      -- of one object
  api_version      TEXT NOT NULL DEFAULT '',      -- of one object
  envelope         TEXT NOT NULL DEFAULT '{}',    -- the list without items and resourceVersion
  resource_version TEXT NOT NULL DEFAULT '',
  -- Of the list that it comes from: its version, the sequence numbers when it was asked for and
  -- when its answer came, and how current it had to be.
  list_version     TEXT NOT NULL DEFAULT '',
  asked            INTEGER NOT NULL DEFAULT 0,
  told             INTEGER NOT NULL DEFAULT 0,
  read             TEXT NOT NULL DEFAULT 'lagging' CHECK (read IN ('latest', 'lagging', 'stream')),
  moved            INTEGER NOT NULL DEFAULT 0,    -- sequence number of the last event; 0: none since the list
  changed_version  TEXT NOT NULL DEFAULT '',      -- of the last change; later versions only move it on
  revision         INTEGER NOT NULL DEFAULT 0,    -- counts the changes to this collection, apart from used_at
  synced_at        INTEGER NOT NULL DEFAULT 0,    -- ms since 1970: last equal to the server's state
  used_at          INTEGER NOT NULL DEFAULT 0     -- ms since 1970: last recorded or replayed
) STRICT;
-- Several collections of one scope may be filling; there is one at most in each other state.
CREATE UNIQUE INDEX collection_scope ON collection (
  principal, api_group, version, resource, representation, namespace, label_selector, field_selector, media_type, state
) WHERE state <> 'filling';
CREATE INDEX collection_resource ON collection (principal, api_group, resource, namespace);
CREATE INDEX collection_state ON collection (state);

CREATE TABLE object (
  id               INTEGER PRIMARY KEY,
  collection_id    INTEGER NOT NULL REFERENCES collection (id) ON DELETE CASCADE,
  namespace        TEXT NOT NULL,
  name             TEXT NOT NULL,
  resource_version TEXT NOT NULL,
  uid              TEXT NOT NULL,
  updated_at       INTEGER NOT NULL,              -- ms since 1970
  asked            INTEGER NOT NULL,              -- sequence number when it was asked for
  told             INTEGER NOT NULL,              -- sequence number when the answer came
  read             TEXT NOT NULL CHECK (read IN ('latest', 'lagging', 'stream')),
  labels           TEXT NOT NULL,                 -- JSON object
  size             INTEGER NOT NULL,              -- bytes of payload
  checksum         INTEGER NOT NULL,              -- CRC-32C of payload: SQLite stores none
  -- json-bare and protobuf lack kind and apiVersion, which are the collection's
  encoding         TEXT NOT NULL CHECK (encoding IN ('json', 'json-bare', 'protobuf')),
  payload          ANY NOT NULL,
  UNIQUE (collection_id, namespace, name)
) STRICT;
CREATE INDEX object_key ON object (name, namespace);
CREATE INDEX object_told ON object (collection_id, told, size);

-- What the server has said about objects without showing them, for every form and API version:
--   exists    there is such an object
--   gone      there is none
--   unknown   it may be anything: nothing from before counts any more
--   refused   of a scope: it may not be listed
-- A row without a name is about all objects of the namespace, or of the resource. Which of two
-- pieces of evidence is newer is decided by the program alone (store/evidence.go).
CREATE TABLE observation (
  id               INTEGER PRIMARY KEY,
  principal        TEXT NOT NULL,
  api_group        TEXT NOT NULL,
  resource         TEXT NOT NULL,
  namespace        TEXT NOT NULL,
  name             TEXT NOT NULL,
  says             TEXT NOT NULL CHECK (says IN ('exists', 'gone', 'unknown', 'refused')),
  version          TEXT NOT NULL,                 -- since when; empty: unknown
  floor            TEXT NOT NULL,                 -- the highest that was known when an answer came without a version
  asked            INTEGER NOT NULL,              -- sequence number when it was asked for
  told             INTEGER NOT NULL,              -- sequence number when the answer came
  read             TEXT NOT NULL CHECK (read IN ('latest', 'lagging', 'stream')),
  uids             TEXT NOT NULL,                 -- JSON array: of the object that is gone
  at               INTEGER NOT NULL,              -- ms since 1970
  UNIQUE (principal, api_group, resource, namespace, name)
) STRICT;

-- Complete responses, for the identical request: discovery, OpenAPI, version, Tables, the 404 for
-- an API that is not served, and reviews, which are POSTs that change nothing. Of a review, neither the request nor the
-- response can be read here: question is a digest, and body is encrypted.
CREATE TABLE response (
  principal  TEXT NOT NULL,
  path       TEXT NOT NULL,                       -- with the query
  accept     TEXT NOT NULL,
  question   TEXT NOT NULL,                       -- of a review; empty: the response to a GET
  status     INTEGER NOT NULL,
  media_type TEXT NOT NULL,
  etag       TEXT NOT NULL,
  headers    TEXT NOT NULL,                       -- JSON object: other headers of the body
  stored_at  INTEGER NOT NULL,                    -- ms since 1970
  version    TEXT NOT NULL,                       -- resourceVersion of the object or list; empty: unknown
  asked      INTEGER NOT NULL,                    -- sequence number when it was asked for
  told       INTEGER NOT NULL,                    -- sequence number when the answer came
  read       TEXT NOT NULL CHECK (read IN ('latest', 'lagging', 'stream')),
  size       INTEGER NOT NULL,
  body       ANY NOT NULL,
  PRIMARY KEY (principal, path, accept, question)
) STRICT;
CREATE INDEX response_size ON response (size DESC, stored_at);
CREATE INDEX response_review ON response (stored_at) WHERE question <> '';

-- Facts about the cluster, such as the keys that verify tokens.
CREATE TABLE fact (
  key        TEXT PRIMARY KEY,
  updated_at INTEGER NOT NULL,                    -- ms since 1970
  value      BLOB NOT NULL
) STRICT;

-- The history of the link.
CREATE TABLE link (
  id     INTEGER PRIMARY KEY,
  at     INTEGER NOT NULL,                        -- ms since 1970
  state  TEXT NOT NULL,
  reason TEXT NOT NULL
) STRICT;

-- Writes that the application was told are accepted, in the order in which they wait for
-- the link: Events (offline.events). The server has no copy of them, so a new file takes
-- them over from the old one.
CREATE TABLE outbox (
  id        INTEGER PRIMARY KEY,
  principal TEXT NOT NULL,
  path      TEXT NOT NULL,                        -- of the collection in which it is created
  name      TEXT NOT NULL,
  queued_at INTEGER NOT NULL,                     -- ms since 1970
  object    TEXT NOT NULL,                        -- JSON, to be created
  patch     TEXT NOT NULL,                        -- JSON merge patch, if it exists; empty: none
  checksum  INTEGER NOT NULL,                     -- CRC-32C of object and patch
  UNIQUE (principal, path, name)
) STRICT;

-- Views for the sqlite3 shell.
CREATE VIEW v_collection AS
  SELECT c.id, c.principal,
         CASE c.api_group WHEN '' THEN c.version ELSE c.api_group || '/' || c.version END || '/' || c.resource AS resource,
         c.representation, c.namespace, c.label_selector, c.field_selector, c.state, c.resource_version,
         (SELECT count(*) FROM object o WHERE o.collection_id = c.id) AS objects,
         (SELECT coalesce(sum(size), 0) FROM object o WHERE o.collection_id = c.id) AS bytes,
         datetime(nullif(c.synced_at, 0) / 1000, 'unixepoch') AS synced, datetime(c.used_at / 1000, 'unixepoch') AS used
  FROM collection c;

-- Every stored row: an object may have several, such as one for each encoding.
CREATE VIEW v_row AS
  SELECT o.id, o.collection_id, c.principal, c.api_group, c.version, c.resource, c.representation, c.state,
         o.namespace, o.name, o.resource_version, o.uid,
         datetime(o.updated_at / 1000, 'unixepoch') AS updated, o.asked, o.told, o.read, o.size, o.encoding, o.labels,
         CASE WHEN typeof(o.payload) = 'text' THEN o.payload END AS json
  FROM object o JOIN collection c ON c.id = o.collection_id;

-- One row for each object and principal: the newest that a program would get, preferably one that
-- can be read here. An object that is recorded as protobuf only has no json:
-- "rockpool-sidecar cache get" prints it. The program decides by store/evidence.go, which knows
-- more than the versions and sequence numbers that decide here.
CREATE VIEW v_object AS
  SELECT collection_id, principal, api_group, version, resource, representation, namespace, name, resource_version, uid, updated,
         asked, told, read, size, encoding, labels, json
  FROM (
    SELECT r.*, row_number() OVER (
      PARTITION BY principal, api_group, resource, namespace, name
      ORDER BY length(resource_version) DESC, resource_version DESC, representation = 'metadata', json IS NULL, told DESC
    ) AS place
    FROM v_row r WHERE state <> 'filling'
  ) AS r
  WHERE place = 1 AND NOT EXISTS (
    SELECT 1 FROM observation n
    WHERE n.principal = r.principal AND n.api_group = r.api_group AND n.resource = r.resource
      AND n.namespace = r.namespace AND n.name = r.name AND n.says = 'gone' AND n.told > r.told
  );

CREATE VIEW v_label AS
  SELECT o.principal, o.api_group, o.resource, o.namespace, o.name, l.key AS label, l.value
  FROM v_object o, json_each(o.labels) l;

CREATE VIEW v_observation AS
  SELECT principal, CASE api_group WHEN '' THEN '' ELSE api_group || '/' END || resource AS resource,
         namespace, name, says, version, floor, asked, told, read, uids, datetime(at / 1000, 'unixepoch') AS at
  FROM observation;

CREATE VIEW v_response AS
  SELECT principal, path, accept, question <> '' AS review, status, media_type, etag, version, asked, told, read, size, datetime(stored_at / 1000, 'unixepoch') AS stored,
         CASE WHEN question = '' AND media_type LIKE 'application/json%' THEN CAST(body AS TEXT) END AS json
  FROM response;

CREATE VIEW v_outbox AS
  SELECT principal, path, name, datetime(queued_at / 1000, 'unixepoch') AS queued, object AS json, patch FROM outbox ORDER BY id;

-- seconds: how long the state lasted; empty for the present one.
CREATE VIEW v_link AS
  SELECT datetime(at / 1000, 'unixepoch') AS at, state, reason, (lead(at) OVER (ORDER BY id) - at) / 1000 AS seconds FROM link ORDER BY id;
