/* linked INTERFACE: ends with 0 where the card has negotiated its link, 1 where it has not yet, else with errno:
 * EOPNOTSUPP (95) where it negotiates nothing. Asks the card's transceiver, as mii-tool does; what the kernel says of
 * the link (carrier, RUNNING) is ahead of it, or behind. */
#include <errno.h>
#include <linux/mii.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	struct ifreq request = { 0 };
	struct mii_ioctl_data *transceiver = (void *)&request.ifr_ifru;
	int any = socket(AF_INET, SOCK_DGRAM, 0);

	if (argc != 2)
		return EINVAL;
	strncpy(request.ifr_name, argv[1], IFNAMSIZ - 1);
	transceiver->phy_id = 1;
	transceiver->reg_num = MII_BMSR;
	if (any < 0 || ioctl(any, SIOCGMIIREG, &request))
		return errno;
	return !(transceiver->val_out & BMSR_ANEGCOMPLETE);
}
