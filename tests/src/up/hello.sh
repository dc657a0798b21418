#!/bin/sh
# Takes the address that the network gives, unless the image has seen to that, and serves a page.
cat > /run/dhcp <<'END'
#!/bin/sh
case "$1" in bound | renew) ;; *) exit ;; esac
ip address replace "$ip/$mask" dev "$interface"
[ -z "$router" ] || ip route replace default via "$router"
END
chmod +x /run/dhcp
ip link set eth0 up
ip -4 address show dev eth0 | grep -q inet || udhcpc -i eth0 -s /run/dhcp -t 20 -T 1 -n
mkdir -p /www
echo "This is $(hostname)." > /www/index.html
httpd -p 80 -h /www
