// SPDX-License-Identifier: Apache-2.0
//! A device whose only way to the cluster is Wi-Fi: two radios that the kernel makes up (mac80211_hwsim), and hostapd at one of
//! them, in a network of its own with the network card.

/// Name of the Wi-Fi network, and its password.
pub const SSID: &str = "Shop 12";
/// See [`SSID`].
pub const PASSWORD: &str = "it's #1 \"secret\"";
/// What the access point and the radios need of Debian.
pub const PACKAGES: [&str; 4] = ["hostapd", "iw", "wireless-regdb", "wpasupplicant"];

/// A script for the device (bash, as root): the second radio and the network card become an access point. What the device has is
/// one radio. hostapd does not notice that its radio was switched off and on again: it is started again.
pub const ACCESS_POINT: &str = r#"
set -e
modprobe mac80211_hwsim radios=2
until [ -d /sys/class/net/wlan0 ] && [ -d /sys/class/net/wlan1 ] && wired=$(basename /sys/class/net/en*) \
  && [ -d "/sys/class/net/$wired" ]; do sleep 0.2; done
ip netns add ap
ip link set dev "$wired" netns ap
iw phy "$(cat /sys/class/net/wlan1/phy80211/name)" set netns name ap
ip -n ap link add br0 type bridge
ip -n ap link set dev "$wired" master br0
ip -n ap link set dev "$wired" up
ip -n ap link set dev br0 up
(umask 077; cat >/run/ap.conf <<'END'
interface=wlan1
bridge=br0
driver=nl80211
ssid=Shop 12
hw_mode=g
channel=1
country_code=DE
wpa=2
wpa_key_mgmt=WPA-PSK SAE
rsn_pairwise=CCMP
ieee80211w=1
wpa_passphrase=it's #1 "secret"
END
)
set +e
while echo "test: the access point starts"; do
  ip netns exec ap hostapd /run/ap.conf &
  sleep 5
  while kill -0 $! && [[ $(ip -n ap link show dev wlan1 up) ]]; do sleep 1; done
  kill $!
  wait
done
"#;

/// The tables of a seed that join this network with `password`.
pub fn table(password: &str) -> String {
    let password = toml::Value::String(password.to_owned());
    format!("\n[network.wifi]\nssid = \"{SSID}\"\npassword = {password}\ncountry = \"DE\"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_access_point_has_the_name_and_the_password_of_the_seed() {
        assert!(ACCESS_POINT.contains(&format!("\nssid={SSID}\n")));
        assert!(ACCESS_POINT.contains(&format!("\nwpa_passphrase={PASSWORD}\n")));
    }
}
