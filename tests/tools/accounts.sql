-- The accounts of both SQL servers. A test may create databases of its own, named shop_ and more.
CREATE DATABASE IF NOT EXISTS shop CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS 'shop'@'%' IDENTIFIED BY 'shop-secret';
GRANT ALL ON `shop`.* TO 'shop'@'%';
GRANT ALL ON `shop\_%`.* TO 'shop'@'%';
CREATE USER IF NOT EXISTS 'root'@'%' IDENTIFIED BY 'root-secret';
GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;
