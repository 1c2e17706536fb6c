#include "nvme/json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "nvme/address.h"
#include "nvme/json_document.h"

namespace nvmf::nvme {
namespace {

std::string padded(std::string text, std::size_t width) {
  text.resize(std::max(width, text.size()), ' ');
  return text;
}

Json power_state(const PowerState& ps) {
  return {
      {"max_power", ps.mp},           {"flags", ps.flags},       {"entry_lat", as_int(ps.enlat)},
      {"exit_lat", as_int(ps.exlat)}, {"read_tput", ps.rrt},     {"read_lat", ps.rrl},
      {"write_tput", ps.rwt},         {"write_lat", ps.rwl},     {"idle_power", ps.idlp},
      {"idle_scale", ps.ips >> 6},    {"active_power", ps.actp}, {"active_power_work", ps.apws & 7},
      {"active_scale", ps.apws >> 6}};
}

void add_capabilities(Json& root, const IdentifyController& id) {
  root["vid"] = id.vid;
  root["ssvid"] = id.ssvid;
  root["sn"] = padded(id.sn, 20);
  root["mn"] = padded(id.mn, 40);
  root["fr"] = padded(id.fr, 8);
  root["rab"] = id.rab;
  root["ieee"] = id.ieee;
  root["cmic"] = id.cmic;
  root["mdts"] = id.mdts;
  root["cntlid"] = id.cntlid;
  root["ver"] = as_int(id.ver);
  root["rtd3r"] = as_int(id.rtd3r);
  root["rtd3e"] = as_int(id.rtd3e);
  root["oaes"] = as_int(id.oaes);
  root["ctratt"] = as_int(id.ctratt);
  root["rrls"] = id.rrls;
  root["cntrltype"] = static_cast<unsigned>(id.cntrltype);
  root["fguid"] = format_uuid(id.fguid);
  root["crdt1"] = id.crdt1;
  root["crdt2"] = id.crdt2;
  root["crdt3"] = id.crdt3;
  root["nvmsr"] = id.nvmsr;
  root["vwci"] = id.vwci;
  root["mec"] = id.mec;
}

void add_admin(Json& root, const IdentifyController& id) {
  root["oacs"] = id.oacs;
  root["acl"] = id.acl;
  root["aerl"] = id.aerl;
  root["frmw"] = id.frmw;
  root["lpa"] = id.lpa;
  root["elpe"] = id.elpe;
  root["npss"] = id.npss;
  root["avscc"] = id.avscc;
  root["apsta"] = id.apsta;
  root["wctemp"] = id.wctemp;
  root["cctemp"] = id.cctemp;
  root["mtfa"] = id.mtfa;
  root["hmpre"] = as_int(id.hmpre);
  root["hmmin"] = as_int(id.hmmin);
  root["tnvmcap"] = id.tnvmcap.to_string();
  root["unvmcap"] = id.unvmcap.to_string();
  root["rpmbs"] = as_int(id.rpmbs);
  root["edstt"] = id.edstt;
  root["dsto"] = id.dsto;
  root["fwug"] = id.fwug;
  root["kas"] = id.kas;
  root["hctma"] = id.hctma;
  root["mntmt"] = id.mntmt;
  root["mxtmt"] = id.mxtmt;
  root["sanicap"] = as_int(id.sanicap);
  root["hmminds"] = as_int(id.hmminds);
  root["hmmaxd"] = id.hmmaxd;
  root["nsetidmax"] = id.nsetidmax;
  root["endgidmax"] = id.endgidmax;
  root["anatt"] = id.anatt;
  root["anacap"] = id.anacap;
  root["anagrpmax"] = as_int(id.anagrpmax);
  root["nanagrpid"] = as_int(id.nanagrpid);
  root["pels"] = as_int(id.pels);
  root["domainid"] = id.domainid;
  root["megcap"] = id.megcap.to_string();
}

void add_io(Json& root, const IdentifyController& id) {
  root["sqes"] = id.sqes;
  root["cqes"] = id.cqes;
  root["maxcmd"] = id.maxcmd;
  root["nn"] = as_int(id.nn);
  root["oncs"] = id.oncs;
  root["fuses"] = id.fuses;
  root["fna"] = id.fna;
  root["vwc"] = id.vwc;
  root["awun"] = id.awun;
  root["awupf"] = id.awupf;
  root["icsvscc"] = id.icsvscc;
  root["nwpc"] = id.nwpc;
  root["acwu"] = id.acwu;
  root["ocfs"] = id.ocfs;
  root["sgls"] = as_int(id.sgls);
  root["mnan"] = as_int(id.mnan);
  root["maxdna"] = id.maxdna.to_string();
  root["maxcna"] = as_int(id.maxcna);
  // Left out when empty, as 2.3 leaves it out.
  if (!id.subnqn.empty()) root["subnqn"] = id.subnqn;
  root["ioccsz"] = as_int(id.ioccsz);
  root["iorcsz"] = as_int(id.iorcsz);
  root["icdoff"] = id.icdoff;
  root["fcatt"] = id.fcatt;
  root["msdbd"] = id.msdbd;
  root["ofcs"] = id.ofcs;
}

}  // namespace

std::string dump(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

std::string to_json(const IdentifyController& id) {
  Json root = Json::object();
  add_capabilities(root, id);
  add_admin(root, id);
  add_io(root, id);
  Json states = Json::array();
  const std::size_t count = std::min<std::size_t>(id.npss + 1u, kPowerStates);
  for (std::size_t i = 0; i < count; ++i) states.push_back(power_state(id.psd[i]));
  root["psds"] = std::move(states);
  return dump(root);
}

std::string to_json(const IdentifyNamespace& id) {
  Json root = Json::object();
  root["nsze"] = id.nsze;
  root["ncap"] = id.ncap;
  root["nuse"] = id.nuse;
  root["nsfeat"] = id.nsfeat;
  root["nlbaf"] = id.nlbaf;
  root["flbas"] = id.flbas;
  root["mc"] = id.mc;
  root["dpc"] = id.dpc;
  root["dps"] = id.dps;
  root["nmic"] = id.nmic;
  root["rescap"] = id.rescap;
  root["fpi"] = id.fpi;
  root["dlfeat"] = id.dlfeat;
  root["nawun"] = id.nawun;
  root["nawupf"] = id.nawupf;
  root["nacwu"] = id.nacwu;
  root["nabsn"] = id.nabsn;
  root["nabo"] = id.nabo;
  root["nabspf"] = id.nabspf;
  root["noiob"] = id.noiob;
  root["nvmcap"] = id.nvmcap.to_string();
  root["nsattr"] = id.nsattr;
  root["nvmsetid"] = id.nvmsetid;
  if ((id.nsfeat & kNsfeatOptimal) != 0) {
    root["npwg"] = id.npwg;
    root["npwa"] = id.npwa;
    root["npdg"] = id.npdg;
    root["npda"] = id.npda;
    root["nows"] = id.nows;
  }
  root["mssrl"] = id.mssrl;
  root["mcl"] = as_int(id.mcl);
  root["msrc"] = id.msrc;
  root["nulbaf"] = id.nulbaf;
  root["anagrpid"] = as_int(id.anagrpid);
  root["endgid"] = id.endgid;
  root["eui64"] = format_hex(id.eui64);
  root["nguid"] = format_hex(id.nguid);
  Json formats = Json::array();
  const std::size_t count = std::min<std::size_t>(id.nlbaf + 1u, kLbaFormats);
  for (std::size_t i = 0; i < count; ++i) {
    const LbaFormat& format = id.lbaf[i];
    formats.push_back({{"ms", format.ms}, {"ds", format.lbads}, {"rp", format.rp}});
  }
  root["lbafs"] = std::move(formats);
  return dump(root);
}

}  // namespace nvmf::nvme
