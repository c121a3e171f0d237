-- 100 users, one live session each, 1,000 tasks each (100,000 in all).
-- Session tokens are 'bench-token-<6 digits>'; the table holds only their SHA-256.
CREATE TABLE users(
  id uuid PRIMARY KEY, email varchar(255) NOT NULL UNIQUE, name varchar(120) NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(), deleted_at timestamptz);
CREATE TABLE sessions(
  id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES users(id),
  token_hash bytea NOT NULL UNIQUE, expires_at timestamptz NOT NULL, status varchar(16) NOT NULL);
CREATE TABLE tasks(
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), title varchar(256) NOT NULL,
  description text NOT NULL DEFAULT '', completed bool NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now(),
  created_by uuid NOT NULL REFERENCES users(id), deleted_at timestamptz);
INSERT INTO users SELECT ('00000000-0000-4000-8000-' || lpad(u::text, 12, '0'))::uuid,
  'user' || u || '@example.com', 'User ' || u FROM generate_series(1, 100) u;
INSERT INTO sessions SELECT gen_random_uuid(), ('00000000-0000-4000-8000-' || lpad(u::text, 12, '0'))::uuid,
  sha256(('bench-token-' || lpad(u::text, 6, '0'))::bytea), now() + interval '30 days', 'active'
  FROM generate_series(1, 100) u;
INSERT INTO tasks(id, title, description, completed, created_at, created_by)
SELECT ('10000000-0000-4000-8000-' || lpad((u * 1000 + t)::text, 12, '0'))::uuid,
  'Task number ' || t || ' of user number ' || u,
  repeat('A description of the work. ', 4), t % 3 = 0, now() - (t || ' minutes')::interval,
  ('00000000-0000-4000-8000-' || lpad(u::text, 12, '0'))::uuid
FROM generate_series(0, 999) t, generate_series(1, 100) u;
CREATE INDEX tasks_owner_recent ON tasks(created_by, created_at DESC);
