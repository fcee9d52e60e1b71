CREATE OR REPLACE USER 'lab'@'127.0.0.1' IDENTIFIED BY '${database_password}';
CREATE OR REPLACE USER 'lab'@'localhost' IDENTIFIED BY '${database_password}';
GRANT ALL PRIVILEGES ON *.* TO 'lab'@'127.0.0.1';
GRANT ALL PRIVILEGES ON *.* TO 'lab'@'localhost';
