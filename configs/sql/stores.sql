-- The declared table of the samples, as its owner would make it. The embedded store makes its own.
CREATE TABLE IF NOT EXISTS stores (
  code          VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,
  city          VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  opening_hours LONGTEXT CHARACTER SET utf8mb4,
  phone         TEXT CHARACTER SET utf8mb4,
  version       BIGINT NOT NULL,
  created_at    DATETIME(3) NOT NULL,
  updated_at    DATETIME(3) NOT NULL
);
