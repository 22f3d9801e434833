-- Devices that nobody uses yet (MSC3814).
create table writer.dehydrated_devices (
    user_id text collate "C" primary key,
    device_id text collate "C" not null,
    device_data text not null,
    foreign key (user_id, device_id) references writer.devices (user_id, device_id) on delete cascade
);
create index dehydrated_devices_device on writer.dehydrated_devices (user_id, device_id);
comment on table writer.dehydrated_devices is 'Devices that nobody uses, which take messages for a device that will log in: one a user.';
comment on column writer.dehydrated_devices.user_id is 'Whose.';
comment on column writer.dehydrated_devices.device_id is 'The device, without a session.';
comment on column writer.dehydrated_devices.device_data is 'What makes it a device again, encrypted by the client; JSON object as text.';
