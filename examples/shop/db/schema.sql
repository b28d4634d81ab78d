CREATE TABLE goods (name text PRIMARY KEY, cents integer NOT NULL);
INSERT INTO goods VALUES ('Bread', 320), ('Butter', 210), ('Coffee', 690);
GRANT SELECT ON goods TO shop;
